"""The cluster that the demo builds or finds on this machine: two nodes with four virtual A100 each."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import yaml

import real_cluster
from demo.manifests import TrainingPlace
from demo.options import GPUS_PER_NODE, Options
from demo.place import JOB_NAMESPACE, RELEASE_NAMESPACE, REPOSITORY, PlaceError, refuse_other_releases
from demo.scraping import configuration
from real_cluster import Cluster, Daemon
from real_cluster.layout import run_folder
from virtual_gpus.build import library_dir

__all__ = ["LocalCluster"]

_REGISTRY: Final = "joulepath.local"
_TAG: Final = yaml.safe_load((REPOSITORY / "charts/joulepath/Chart.yaml").read_text())["appVersion"]
_STATE: Final = Path("/run/virtual-gpus/state")
_NVML: Final = "libnvidia-ml.so.1"
_LIBRARIES: Final = "/usr/lib/x86_64-linux-gnu"
_IMAGE_PYTHON: Final = (3, 11)
_RESOURCE: Final = "nvidia.com/gpu"


class LocalCluster:
    """The cluster room's cluster, with the virtual GPUs of a workload."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._cluster: Cluster | None = None
        self._was_up = False
        self._prometheus: str | None = None
        self._turn = ExitStack()

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            raise PlaceError("The cluster isn't up: prepare() brings it up.")
        return self._cluster

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(*arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        return self.cluster.helm(*arguments)

    def prepare(self) -> None:
        if not self._options.workload.framework:
            self._check_python()
        try:
            self._was_up = self._is_up()
            with ExitStack() as turn:
                self._cluster = turn.enter_context(real_cluster.cluster_up(2))
                turn.enter_context(real_cluster.only_release())
                refuse_other_releases(self)
                self._virtual_gpus()
                for archive in self._images():
                    self._cluster.load(archive)
                turn.enter_context(real_cluster.cores_awake())
                self._turn = turn.pop_all()
        except real_cluster.MachineError as error:
            raise PlaceError(str(error)) from error

    @staticmethod
    def _is_up() -> bool:
        try:
            real_cluster.running()
        except real_cluster.MachineError:
            return False
        return True

    @staticmethod
    def _check_python() -> None:
        own = Path(sys.base_prefix) == Path("/usr")
        if own and sys.version_info[:2] != _IMAGE_PYTHON:
            wanted, found = (".".join(map(str, version)) for version in (_IMAGE_PYTHON, sys.version_info[:2]))
            raise PlaceError(
                f"The training pods mount this Python environment over Debian's Python {wanted}, and it is made from "
                f"/usr/bin/python{found}: make .venv from Python {wanted}, or from one outside /usr (uv python install "
                f"{wanted}; uv venv --python {wanted} .venv)."
            )

    def _virtual_gpus(self) -> None:
        """Lay each node's GPUs anew and offer them to the kubelet."""
        options = self._options
        settings = {
            "state": _STATE,
            **options.workload.gpus,
            "gpus": GPUS_PER_NODE,
            "time-scale": options.time_scale,
            "lag-ms": options.lag_ms,
        }
        plugin = Daemon("virtual-gpus", (sys.executable, "-m", "virtual_gpus.device_plugin", "--state", str(_STATE)))
        for node in self.cluster.nodes:
            words = [f"--{key}={value}" for key, value in {**settings, "node": node.name}.items()]
            node.nsenter(sys.executable, "-m", "virtual_gpus", "init", *words)
            plugin.on(node)
        real_cluster.until("the virtual GPUs", 60, self._gpus_offered, 0.5)

    def _gpus_offered(self) -> bool:
        nodes = json.loads(self.kubectl("get", "nodes", "--output", "json"))["items"]
        return all(node["status"]["allocatable"].get(_RESOURCE) == str(GPUS_PER_NODE) for node in nodes)

    @property
    def _training_image(self) -> str:
        return f"{_REGISTRY}/{self._options.workload.image}:{_TAG}"

    def _images(self) -> list[Path]:
        main, example = REPOSITORY / "Dockerfile", self._options.workload.example / "Dockerfile"
        build = real_cluster.images.build
        parts = [build(main, part, f"{_REGISTRY}/{part}:{_TAG}") for part in ("operator", "agent")]
        return [*parts, build(example, None, self._training_image, context=REPOSITORY)]

    def values(self) -> Mapping[str, Any]:
        state = str(_STATE.parent)
        library = str(library_dir() / _NVML)
        return {
            "injection": self._options.injection,
            "image": {"registry": _REGISTRY, "tag": _TAG, "pullPolicy": "Never"},
            "agent": {
                "extraEnv": [{"name": "VIRTUAL_GPUS_STATE", "value": str(_STATE)}],
                "extraVolumes": [
                    {"name": "virtual-nvml", "hostPath": {"path": library, "type": "File"}},
                    {"name": "virtual-gpus", "hostPath": {"path": state, "type": "Directory"}},
                ],
                "extraVolumeMounts": [
                    {"name": "virtual-nvml", "mountPath": f"{_LIBRARIES}/{_NVML}", "readOnly": True},
                    {"name": "virtual-gpus", "mountPath": state},
                ],
            },
        }

    def training(self) -> TrainingPlace:
        python, base = self._options.workload.python()
        environment = python.parent.parent
        folders = (environment,) if base in (environment, Path("/usr")) else (environment, base)
        closed = tuple(dict.fromkeys(above for folder in folders if (above := _closed(folder)) is not None))
        return TrainingPlace(JOB_NAMESPACE, self._training_image, "Never", python, folders, closed)

    def scrape(self) -> str:
        self._stop_prometheus()
        pods = json.loads(self.kubectl("get", "pods", "--namespace", RELEASE_NAMESPACE, "--output", "json"))["items"]
        self._prometheus = real_cluster.start_prometheus(configuration(pods))
        _prometheus_record().write_text(self._prometheus)
        return self._prometheus

    def slow(self, share: float) -> None:
        node = self.cluster.nodes[-1]
        for gpu in range(GPUS_PER_NODE):
            words = (f"--state={_STATE}", f"--gpu={gpu}", f"--slower={share}")
            node.nsenter(sys.executable, "-m", "virtual_gpus", "break", *words)

    @staticmethod
    def _stop_prometheus() -> None:
        """End the one that this run, or an earlier one with --keep, has started."""
        if _prometheus_record().exists():
            real_cluster.stop_prometheus(_prometheus_record().read_text())
            _prometheus_record().unlink()

    def leave(self) -> None:
        if self._cluster is None:
            return
        self._stop_prometheus()
        self._turn.close()
        if self._was_up:
            return
        try:
            real_cluster.down()
        except real_cluster.MachineError as error:
            print(f"The cluster is left up. {error}")

    def tools(self) -> Sequence[str]:
        prometheus = [f"Prometheus: {self._prometheus}"] if self._prometheus else []
        return [
            *prometheus,
            f"export KUBECONFIG={self.kubeconfig} PATH={self.cluster.processes.path}:$PATH",
            f"kubectl --namespace {JOB_NAMESPACE} describe energyplan {self._options.workload.name}",
            "make down    removes all of it",
        ]


def _closed(folder: Path) -> Path | None:
    """The first folder on the way to one that only root may enter; None if anybody gets there."""
    ways = (above for above in reversed(folder.parents) if not above.stat().st_mode & stat.S_IXOTH)
    return next(ways, None)


def _prometheus_record() -> Path:
    return run_folder() / "demo-prometheus"
