"""What a look of the operator takes: the same objects, read and decided upon once more in this process."""

from __future__ import annotations

import statistics
import time
from typing import Final

from kubernetes import config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from joulepath_crds import EnergyPlanSpec, EnergyPlanStatus
from joulepath_operator.control.api import Api
from joulepath_operator.control.index import WATCHED, Index
from joulepath_operator.control.observe import with_job
from joulepath_operator.control.places import Places
from joulepath_operator.facts.absence import Means, Way
from joulepath_operator.facts.names import ENERGY_PLANS
from joulepath_operator.facts.observation import Observation
from joulepath_operator.story.decide import decide
from simulated_nodes.place import Place

__all__ = ["look_cpu_s"]

_LOOKS: Final = 3
_ANY_TIME: Final = "2026-01-01T00:00:00Z"


def look_cpu_s(place: Place, key: tuple[str, str]) -> float | None:
    """Median CPU seconds, the API server's answers not waited for; None where it doesn't answer. Nothing is written."""
    try:
        return round(_look(place, key), 4)
    except (ApiException, HTTPError):
        return None


def _look(place: Place, key: tuple[str, str]) -> float:
    api, index = Api(config.new_client_from_config(str(place.kubeconfig("look"))), timeout_s=60), Index()
    for resource in WATCHED:
        index.replace(resource, api.list_all(resource) or [], {})
    taken_s, places = [], Places()
    for _ in range(_LOOKS):
        begun_s = time.thread_time()
        body = api.get(ENERGY_PLANS, key)
        assert body is not None
        seen = Observation(
            namespace=key[0],
            name=key[1],
            generation=body["metadata"]["generation"],
            spec=EnergyPlanSpec.from_api(body["spec"]),
            status=EnergyPlanStatus.from_api(body.get("status") or {}),
            now=_ANY_TIME,
            plans=index.plans(key),
        )
        decide(with_job(seen, api, index, Means(Way.NRI), places))
        taken_s.append(time.thread_time() - begun_s)
    return statistics.median(taken_s)
