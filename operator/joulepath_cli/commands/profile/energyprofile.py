"""An EnergyProfile, from a file or from the cluster."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from joulepath_crds import GROUP, VERSION, EnergyProfileSpec
from joulepath_planner import ProfileError
from joulepath_planner.arguments import quoted
from joulepath_planner.inputs.text import read_text

__all__ = ["is_one", "load"]

_PREFIX: Final = "energyprofile/"
_SUFFIXES: Final = (".yaml", ".yml")
_KIND: Final = "EnergyProfile"
_PLURAL: Final = "energyprofiles"
_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 3_000_000
"""An object of the API has 1.5 MB at most."""
_DEEPEST: Final = 50

# The parser in C takes seconds for such a file, the one in Python minutes. Both make plain values only.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def is_one(source: str) -> bool:
    """Whether what the command line names is an EnergyProfile."""
    return source.startswith(_PREFIX) or Path(source).suffix.lower() in _SUFFIXES


def load(source: str) -> EnergyProfileSpec:
    """The EnergyProfile that the command line names: a file, or energyprofile/NAMESPACE/NAME of the cluster.

    Raises:
        ProfileError: There is none that can be read.
        OSError: The file can't be read.
    """
    if not source.startswith(_PREFIX):
        return _from_file(Path(source))
    namespace, _, name = source.removeprefix(_PREFIX).partition("/")
    if not namespace or not name:
        raise ProfileError(f"{source!r} names no profile; write energyprofile/NAMESPACE/NAME.")
    return _from_cluster(namespace, name)


def _from_file(path: Path) -> EnergyProfileSpec:
    """The first EnergyProfile of a YAML file.

    Raises:
        ProfileError: There is none that can be read.
        OSError: The file can't be read.
    """
    text = read_text(path, ProfileError, _MOST_BYTES)
    try:
        _check_shape(text)
        documents = list(yaml.load_all(text, _LOADER))
    except (yaml.YAMLError, ValueError) as error:
        raise ProfileError(
            f"{path} is no YAML ({' '.join(str(error).split())}); write it with kubectl get energyprofile NAME -o yaml."
        ) from None
    for body in documents:
        items = body.get("items", [body]) if isinstance(body, dict) else []
        for item in items if isinstance(items, list) else []:
            if isinstance(item, dict) and item.get("kind") == _KIND:
                return _read(str(path), item)
    raise ProfileError(
        f"{path} holds no object of kind {_KIND}; write one with kubectl get energyprofile NAME -o yaml."
    )


def _from_cluster(namespace: str, name: str) -> EnergyProfileSpec:
    """An EnergyProfile of the cluster that the kubeconfig names.

    Raises:
        ProfileError: It can't be had.
    """
    where = f"energyprofile/{namespace}/{name}"
    try:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError
    except ImportError:
        raise ProfileError(f"{where}: the Kubernetes client is missing; pip install kubernetes.") from None
    try:
        config.load_kube_config()
        body = client.CustomObjectsApi().get_namespaced_custom_object(
            GROUP, VERSION, namespace, _PLURAL, name, _request_timeout=_TIMEOUT_S
        )
    except config.ConfigException as error:
        raise ProfileError(f"{where}: no cluster is configured ({error}); set KUBECONFIG.") from None
    except client.ApiException as error:
        found = f"the cluster answers {error.status} {error.reason}"
        raise ProfileError(f"{where}: {found}; kubectl get energyprofiles -A tells what there is.") from None
    except HTTPError as error:
        raise ProfileError(f"{where}: the cluster doesn't answer ({error}); see kubectl cluster-info.") from None
    return _read(where, body)


def _check_shape(text: str) -> None:
    """Refuse what takes a YAML reader beyond all bounds: nesting, and merges (`<<`), which multiply.

    Raises:
        yaml.YAMLError: There is such a thing, or it is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, _LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        merges = isinstance(event, yaml.ScalarEvent) and event.value == "<<"
        if depth > _DEEPEST or merges:
            line = f" in line {event.start_mark.line + 1}" if event.start_mark else ""
            raise yaml.YAMLError(f"{'merge keys' if merges else 'nesting'}{line} that no {_KIND} has")


def _read(where: str, body: dict[str, Any]) -> EnergyProfileSpec:
    try:
        spec = EnergyProfileSpec.from_api(body.get("spec"))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["spec", *map(str, first["loc"])])
        value = "" if first["type"] == "missing" else f" is {quoted(first['input'])}"
        raise ProfileError(f"{where}: {field}{value}: {first['msg']}; correct it, or measure again.") from None
    for name, keys in (
        ("stages", [(one.stage,) for one in spec.stages]),
        ("stages.kinds", [(one.stage, kind.kind) for one in spec.stages for kind in one.kinds]),
        ("transfers", [(one.from_stage, one.to_stage, one.kind) for one in spec.transfers]),
        ("blockingPower", [(one.clock_mhz,) for one in spec.blocking_power]),
    ):
        if twice := [key for key, count in Counter[tuple[object, ...]](keys).items() if count > 1]:
            shown = ", ".join(map(str, twice[0]))
            raise ProfileError(f"{where}: spec.{name} has {shown} twice; keep the one to plan with.")
    return spec
