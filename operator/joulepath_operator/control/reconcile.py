"""Handles one EnergyPlan: gathers what is known (`observe`), lets `decide` decide, writes what it says.

The planner is asked between two decisions: the first says what to plan, the second is made anew from the cluster as it
is when the answer is there. It computes meanwhile, and nobody waits for it: what changes in the cluster is seen and
acted upon. Beside what is being computed (`questions`), nothing is remembered between two calls but blocks that are put
together already, which would be the same each time, and where pods run, which is asked anew where it isn't known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from pydantic import ValidationError

from joulepath_crds import EnergyPlanSpec, EnergyPlanStatus, Phase
from joulepath_operator.control.api import Api, Body, ConflictError, UnacceptableError
from joulepath_operator.control.index import Index
from joulepath_operator.control.observe import with_job
from joulepath_operator.control.places import Places
from joulepath_operator.control.questions import Planner, Questions
from joulepath_operator.control.stopping import Stopping
from joulepath_operator.facts.absence import Means
from joulepath_operator.facts.names import ENERGY_PLANS, ENERGY_PROFILES, JOB_PLANS, NamespacedName, Resource
from joulepath_operator.facts.observation import Decision, Observation, StoredPlan, StoredProfile
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, Request
from joulepath_operator.figures.joining import KeptBlocks
from joulepath_operator.metrics import Metrics
from joulepath_operator.story.decide import decide
from joulepath_operator.story.status import CONDITIONS, Story

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 0.5
_GONE_AFTER_S: Final = 15.0
"""How long to wait for the end of an object that is being deleted: no watch tells of it."""
_OVER: Final = frozenset({Phase.COMPLETED, Phase.REFUSED})


class Reconciler:
    """Call it with the key of an EnergyPlan; `again` is called with one whose plan has been computed."""

    def __init__(
        self,
        api: Api,
        index: Index,
        planner: Planner,
        metrics: Metrics,
        now: Callable[[], str] | None = None,
        again: Callable[[NamespacedName], object] = lambda key: None,
        means: Means | None = None,
        stops: Stopping | None = None,
    ) -> None:
        self._api, self._index, self._metrics = api, index, metrics
        self._means, self._stops = means or Means(), stops or Stopping(api)
        self._questions = Questions(planner, again)
        self._blocks: dict[NamespacedName, KeptBlocks] = {}
        self._places: dict[NamespacedName, Places] = {}
        self._now = now or _utc_now

    async def __call__(self, key: NamespacedName) -> float | None:
        """Seconds after which to look again, if any.

        Raises:
            kubernetes.client.ApiException: What the API raises, a conflict apart.
        """
        try:
            return await self._reconcile(key)
        except ConflictError:  # somebody was faster; what they wrote arrives by the watch
            return _AGAIN_S

    async def _reconcile(self, key: NamespacedName) -> float | None:
        body = await asyncio.to_thread(self._api.get, ENERGY_PLANS, key)
        await asyncio.to_thread(self._bury, key, body)
        if body is None or body["metadata"].get("deletionTimestamp"):
            self._questions.stop(key)
            self._blocks.pop(key, None)
            self._places.pop(key, None)
            self._metrics.forget(key)
            return None
        asked, answer = self._questions.answer(key)
        decision = await asyncio.to_thread(self._decide, key, body, asked, answer)
        decision = await asyncio.to_thread(self._carry_out, key, body, decision)
        if decision.ask_planner is not None:
            self._questions.ask(key, decision.ask_planner)
        elif decision.write_plan is not None or decision.status.phase in _OVER:
            self._questions.stop(key)  # else a node may only be silent for a moment: the planner goes on
        self._metrics.tell(key, body["spec"]["job"]["name"], decision.status)
        return decision.requeue_after_s

    def _bury(self, key: NamespacedName, body: Body | None) -> None:
        """Deletes JobPlans that no EnergyPlan owns any more, as it was read just now: nobody else would for certain."""
        lives = body is not None and not body["metadata"].get("deletionTimestamp")
        orphans = self._index.orphans(key, body["metadata"]["uid"] if body is not None and lives else None)
        if not orphans or (body is None and not self._api.is_gone(ENERGY_PLANS, key)):
            return
        for plan in orphans:
            log.info("%s/%s: JobPlan %s is deleted, no EnergyPlan owns it", *key, plan.name)
            self._api.delete_plan(key[0], plan.name, plan.version)
            self._index.drop(JOB_PLANS, {"metadata": {"namespace": key[0], "name": plan.name}})

    def _decide(self, key: NamespacedName, body: Body, asked: Request | None, answer: Answer | None) -> Decision:
        try:
            spec = EnergyPlanSpec.from_api(body["spec"])
        except ValidationError as error:
            return self._invalid(key, body, error)
        observation = Observation(
            namespace=key[0],
            name=key[1],
            generation=body["metadata"]["generation"],
            spec=spec,
            status=_status(body),
            now=self._now(),
            plans=self._index.plans(key),
            policy=self._index.policy(),
            unreadable=self._index.unreadable,
            asked=asked,
            planned=answer,
        )
        places = self._places.setdefault(key, Places())
        seen = with_job(observation, self._api, self._index, self._means, places, self._stops.known)
        return decide(seen, self._blocks.setdefault(key, KeptBlocks()))

    def _story(self, body: Body, status: EnergyPlanStatus) -> Story:
        """Goes on from a status, beside what is decided."""
        return Story(status, status.conditions, self._now(), body["metadata"]["generation"])

    def _invalid(self, key: NamespacedName, body: Body, error: ValidationError) -> Decision:
        """What an older schema let through."""
        first = error.errors()[0]
        field = ".".join(["spec", *(str(part) for part in first["loc"])])
        message = f"{field} is {first['input']!r}: {first['msg']}. Correct it in the EnergyPlan."
        story = self._story(body, _status(body))
        story.tell("Degraded", True, Refusal.INVALID_SPEC, message)
        plans = tuple(plan.name for plan in self._index.plans(key))
        return Decision(story.end(Phase.REFUSED, message), delete_plans=plans)

    def _unacceptable(self, body: Body, status: EnergyPlanStatus, error: UnacceptableError) -> EnergyPlanStatus:
        message = (
            f"The API server doesn't take what was planned: {error}. After an upgrade of Joulepath, apply its CRDs "
            "(kubectl apply --server-side -f crds/); then restart the job or change the EnergyPlan's spec to try again."
        )
        story = self._story(body, status)
        story.tell("Active", False, Refusal.NOT_WRITABLE, message)
        story.tell("Degraded", True, Refusal.NOT_WRITABLE, message)
        return story.end(Phase.REFUSED, message, carry=CONDITIONS)

    def _carry_out(self, key: NamespacedName, body: Body, decision: Decision) -> Decision:
        """Writes what was decided, or what is decided instead while something is in its way."""
        namespace, before = key[0], _status(body)
        decision = self._unblocked(namespace, body, decision)
        try:
            if decision.status != before or "status" not in body:
                body = self._api.write_status(body, decision.status)
                if decision.status.message != before.message:
                    log.info("%s/%s: %s: %s", *key, decision.status.phase.value, decision.status.message)
                _check_kept(decision.status, body)
            if decision.notice is not None:
                self._api.notify(body, decision.notice)
            self._write(namespace, body, decision)
        except UnacceptableError as error:
            self._api.write_status(body, self._unacceptable(body, decision.status, error))
        except ConflictError:
            for resource, stored in _written(decision):
                self._look(resource, (namespace, stored.name))
            raise
        return decision

    def _unblocked(self, namespace: str, body: Body, decision: Decision) -> Decision:
        """What is to be created may be there, unknown to the index, and would be refused for ever."""
        for resource, stored in _written(decision):
            if stored.version is not None or (found := self._look(resource, (namespace, stored.name))) is None:
                continue
            if found["metadata"].get("deletionTimestamp"):
                return self._waiting(body, decision, f"{resource.plural} {stored.name}")
            if (namespace, stored.name) in self._index.keys(resource):
                raise ConflictError(f"{resource.plural} {stored.name} is there already")  # decided anew from it
            unreadable = replace(stored, version=found["metadata"]["resourceVersion"])
            field = "write_plan" if resource == JOB_PLANS else "write_profile"
            decision = replace(decision, **{field: cast("Any", unreadable)})
        return decision

    def _look(self, resource: Resource, key: NamespacedName) -> Body | None:
        """The object as it is; the index has it so from now on."""
        found, known = self._api.get(resource, key), key in self._index.keys(resource)
        if found is None:
            if known:
                self._index.drop(resource, {"metadata": {"namespace": key[0], "name": key[1]}})
        elif known or not found["metadata"].get("deletionTimestamp"):
            self._index.put(resource, found, lives=True)
        return found

    def _waiting(self, body: Body, decision: Decision, what: str) -> Decision:
        message = (
            f"{what} is being deleted, and something holds that up; a new one is made once it is gone. "
            "See its metadata.finalizers for who does."
        )
        story = Story(decision.status, _status(body).conditions, self._now(), body["metadata"]["generation"])
        story.tell("Degraded", True, "BeingDeleted", message)
        status = story.keep(message=f"Degraded: {message}")
        return replace(decision, status=status, write_plan=None, write_profile=None, requeue_after_s=_GONE_AFTER_S)

    def _write(self, namespace: str, body: Body, decision: Decision) -> None:
        if decision.write_profile is not None:
            self._index.put(ENERGY_PROFILES, self._api.write_profile(namespace, decision.write_profile))
        for name in decision.delete_plans:
            self._api.delete_plan(namespace, name)
            self._index.drop(JOB_PLANS, {"metadata": {"namespace": namespace, "name": name}})
        if decision.write_plan is not None:
            self._index.put(JOB_PLANS, self._api.write_plan(body, decision.write_plan))


def _written(decision: Decision) -> list[tuple[Resource, StoredPlan | StoredProfile]]:
    """What is written beside the status."""
    found = ((JOB_PLANS, decision.write_plan), (ENERGY_PROFILES, decision.write_profile))
    return [(resource, stored) for resource, stored in found if stored is not None]


def _status(body: Body) -> EnergyPlanStatus:
    """The status as it stands; what can't be read counts as none."""
    try:
        return EnergyPlanStatus.from_api(body.get("status") or {})
    except ValidationError:
        log.warning("%s: its status can't be read, the story begins anew", body["metadata"]["name"])
        return EnergyPlanStatus()


def _check_kept(status: EnergyPlanStatus, body: Body) -> None:
    """Stops here where the API server has dropped a field: a story that rests on it would begin anew each time.

    Raises:
        UnacceptableError: It has.
    """
    if lost := status.to_api().keys() - body["status"].keys():
        name = body["metadata"]["name"]
        raise UnacceptableError(f"EnergyPlan {name} is not stored as it was written (no status.{min(lost)})")


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
