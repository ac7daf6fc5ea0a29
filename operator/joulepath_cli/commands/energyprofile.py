"""An EnergyProfile, from a file or from the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from joulepath_crds import GROUP, VERSION, EnergyProfileSpec
from joulepath_planner import ProfileError

__all__ = ["from_cluster", "from_file"]

_KIND: Final = "EnergyProfile"
_PLURAL: Final = "energyprofiles"
_TIMEOUT_S: Final = 10.0


def from_file(path: Path) -> EnergyProfileSpec:
    """The first EnergyProfile of a YAML file.

    Raises:
        ProfileError: There is none that can be read.
        OSError: The file can't be read.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    for body in documents:
        items = body.get("items", [body]) if isinstance(body, dict) else []
        for item in items if isinstance(items, list) else []:
            if isinstance(item, dict) and item.get("kind") == _KIND:
                return _read(str(path), item)
    raise ProfileError(
        f"{path} holds no object of kind {_KIND}; write one with kubectl get energyprofile NAME -o yaml."
    )


def from_cluster(namespace: str, name: str) -> EnergyProfileSpec:
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


def _read(where: str, body: dict[str, Any]) -> EnergyProfileSpec:
    try:
        return EnergyProfileSpec.from_api(body.get("spec"))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["spec", *map(str, first["loc"])])
        raise ProfileError(f"{where}: {field}: {first['msg']}.") from None
