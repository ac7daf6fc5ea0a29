"""`joulepath-agent`: the agent of one node, in its cluster."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from joulepath_agent.agent import Agent
from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.cluster.objects import ApiServer
from joulepath_agent.doctor.__main__ import main as examine
from joulepath_agent.injection.admission import Admission
from joulepath_agent.injection.client import Client
from joulepath_agent.injection.jobs import Jobs
from joulepath_agent.injection.registry import Registry, ToldPods
from joulepath_agent.logs import Log
from joulepath_agent.metrics import AgentCollector
from joulepath_agent.peers.ownership import ClusterPods
from joulepath_agent.peers.podresources import held_devices
from joulepath_agent.server import serve_health, serve_metrics
from joulepath_clocks.gpus.nvml import Nvml
from joulepath_clocks.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S
from joulepath_crds.serving.guard import Guard
from joulepath_warden.options import Options, seconds

__all__ = ["main"]

log = logging.getLogger("joulepath_agent")

_LAST_LINES_S: Final = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; the exit status. With `doctor`, examines the node's GPUs instead."""
    said = sys.argv[1:] if arguments is None else list(arguments)
    if said[:1] == ["reset"]:  # the warden's: nothing of the agent may keep it from that
        os.execv(sys.executable, [sys.executable, "-m", "joulepath_warden", "--reset-all", *said[1:]])
    if said[:1] == ["doctor"]:
        return examine(said[1:])
    options = _options().parse_args(said)
    written = Log(options.log_level.upper(), "%(asctime)s %(levelname)s %(name)s %(message)s", sys.stderr.fileno())
    try:
        return _run(options, written)
    finally:
        written.flush(_LAST_LINES_S)


def _run(options: argparse.Namespace, written: Log) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = ApiServer.connect(options.api_server, options.credentials)
        life_s = options.plan_time_to_live
        cluster = NodeApi(server, options.node_name, options.namespace, plan_time_to_live_s=life_s)
        registry, jobs = Registry(), Jobs(cluster.read_job)
        told = ToldPods(registry, jobs)
        agent = Agent(
            Nvml(),
            ClusterPods(
                options.pod_resources,
                cluster.read_pod,
                cluster.read_job,
                lambda uid: told if told.knows(uid) else None,
            ),
            options.state_dir,
            version=version("joulepath"),
            look_for_gpus_s=options.look_for_gpus,
            injected=registry,
        )
        injector = Client(options.state_dir, registry, lambda: agent.chosen)
        held = partial(held_devices, options.pod_resources)
        admission = Admission(registry, jobs, held, agent.node_gpus, injector.say)
        collected = CollectorRegistry()
        collected.register(AgentCollector(agent, options.node_name, written.dropped_lines))
        address = options.metrics_address
        guard = Guard(options.metrics_tls, cluster.review) if options.metrics_tls else None
        metrics = serve_metrics(address, options.metrics_port, collected, guard)
        health = serve_health(address, options.health_port, lambda: agent.healthy, lambda: agent.ready)
    except OSError as error:
        log.error("%s", error)
        return 1
    agent.start()
    cluster.run(agent)
    injector.start(admission)
    log.info("metrics at port %d, health at port %d", metrics.port, health.port)
    stop.wait()
    for part in (injector, admission, jobs):
        part.stop()
    agent.stop()
    cluster.stop()
    metrics.close()
    health.close()
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="joulepath-agent",
        description="Measures the ranks on one node's GPUs, and tells the node's clocks (joulepath-clocks) the plans "
        "of its jobs. Options are also read from the environment, by the names in brackets. `joulepath-agent doctor` "
        "examines the GPUs of this node, `joulepath-agent reset` is joulepath-warden --reset-all.",
    )
    take = Options(parser).take
    take("--node-name", "NODE_NAME", None, str, "name of this node")
    take("--namespace", "POD_NAMESPACE", "joulepath", str, "namespace of the agent's Lease")
    take("--state-dir", "JOULEPATH_STATE_DIR", "/var/lib/joulepath", Path, "folder with the clocks' socket")
    url = "URL of the API server; by default that of the cluster that this pod is in. By http, without credentials"
    take("--api-server", "JOULEPATH_API_SERVER", "", str, url)
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    take("--credentials", "JOULEPATH_CREDENTIALS", account, Path, "folder with token and ca.crt for it")
    kubelet = "/var/lib/kubelet/pod-resources/kubelet.sock"
    take("--pod-resources", "JOULEPATH_POD_RESOURCES", kubelet, Path, "the kubelet's pod-resources socket")
    take("--metrics-address", "JOULEPATH_METRICS_ADDRESS", "0.0.0.0", str, "address of the HTTP servers")
    take("--metrics-port", "JOULEPATH_METRICS_PORT", "9709", int, "port of /metrics; 0: any free")
    secure = "folder with tls.crt and tls.key: metrics by HTTPS, to those whom the API server lets get /metrics"
    take("--metrics-tls", "JOULEPATH_METRICS_TLS", "", _folder, secure)
    take("--health-port", "JOULEPATH_HEALTH_PORT", "9710", int, "port of /healthz and /readyz; 0: any free")
    take("--look-for-gpus", "JOULEPATH_LOOK_FOR_GPUS", "30", float, "seconds between two looks until all are read")
    life = "seconds for which plans are played without news of them from the API server"
    lives = seconds(60, 86400)
    take("--plan-time-to-live", "JOULEPATH_PLAN_TIME_TO_LIVE", str(DEFAULT_TIME_TO_LIVE_S), lives, life)
    take("--log-level", "JOULEPATH_LOG_LEVEL", "info", str, "debug, info, warning or error")
    return parser


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


if __name__ == "__main__":
    sys.exit(main())
