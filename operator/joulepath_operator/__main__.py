"""`joulepath-operator run` (watch, decide, deliver) and `joulepath-operator webhook` (inject the trainer)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Final

__all__ = ["main"]

_METRICS_PORT: Final = 9708
_HEALTH_PORT: Final = 9710
_WEBHOOK_PORT: Final = 9443


def main(arguments: Sequence[str] | None = None) -> int:
    """Ends with SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event that succeeds
    work: Coroutine[None, None, None] = options.work(options)
    asyncio.run(_until_signal(work))
    return 0


# Each of the two imports what it runs, for itself: a webhook is small, and has no use for kopf.


def _operator(options: argparse.Namespace) -> Coroutine[None, None, None]:
    from joulepath_operator.control.api import Api
    from joulepath_operator.facts.absence import Means, Way
    from joulepath_operator.planning.pool import PlannerLimits
    from joulepath_operator.runner import run

    means = Means(Way(options.injection), tuple(options.gpu_resource.split(",")))
    api = Api.connect(unlabelled=options.unlabelled_namespaces, stops=options.stops)
    return run(
        api,
        means,
        options.metrics_host,
        options.metrics_port,
        options.health_port,
        PlannerLimits.within(options.memory, options.planner_workers, options.planner_timeout),
        options.metrics_tls,
    )


def _webhook(options: argparse.Namespace) -> Coroutine[None, None, None]:
    from joulepath_operator.control.api import Api
    from joulepath_operator.webhook.server import LOOKUP_TIMEOUT_S, Webhook, serve

    api = Api.connect(LOOKUP_TIMEOUT_S, options.unlabelled_namespaces, options.stops)
    webhook = Webhook.of(api, options.gpu_resource.split(","))
    return serve(webhook, options.tls_cert, options.tls_key, options.host, options.port, options.health_port)


async def _until_signal(work: Coroutine[None, None, None]) -> None:
    """Cancels the work when asked to end; the operator's is kopf's own business once its watches run."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


def _object(text: str) -> tuple[str, str] | None:
    namespace, _, name = text.partition("/")
    return (namespace, name) if name else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="joulepath-operator", description=__doc__)
    parser.add_argument("--log-level", default=os.environ.get("JOULEPATH_LOG_LEVEL", "info"))
    parser.add_argument(
        "--unlabelled-namespaces",
        choices=("privileged", "baseline", "restricted"),
        default=os.environ.get("JOULEPATH_UNLABELLED_NAMESPACES", "privileged"),
        help="Pod Security level of namespaces that name none",
    )
    parser.add_argument(
        "--gpu-resource",
        default=os.environ.get("JOULEPATH_GPU_RESOURCE", "nvidia.com/gpu"),
        help="resource names, by commas, of which a container that trains has a limit",
    )
    parser.add_argument(
        "--stops",
        type=_object,
        default=os.environ.get("JOULEPATH_STOPS", ""),
        metavar="NAMESPACE/NAME",
        help="ConfigMap that tells where injection by the webhook is stopped",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="the operator")
    running.set_defaults(work=_operator)
    running.add_argument(
        "--injection",
        choices=("volumes", "nri"),
        default=os.environ.get("JOULEPATH_INJECTION", "volumes"),
        help="what puts the trainer into pods: the webhook, or each node's injector",
    )
    running.add_argument("--metrics-host", default="0.0.0.0")
    running.add_argument("--metrics-port", type=int, default=_METRICS_PORT)
    running.add_argument(
        "--metrics-tls",
        type=_folder,
        default=os.environ.get("JOULEPATH_METRICS_TLS", ""),
        metavar="FOLDER",
        help="with tls.crt and tls.key: metrics by HTTPS, to those whom the API server lets get /metrics",
    )
    running.add_argument("--health-port", type=int, default=_HEALTH_PORT)
    running.add_argument("--planner-timeout", type=int, default=120, metavar="SECONDS")
    running.add_argument("--planner-workers", type=int, default=2, metavar="COUNT", help="plans computed at a time")
    running.add_argument(
        "--memory",
        type=int,
        default=os.environ.get("JOULEPATH_MEMORY", "0"),
        metavar="BYTES",
        help="what the container may use: planners share what the operator doesn't need; 0: no limit",
    )
    hook = commands.add_parser("webhook", help="the admission webhook")
    hook.set_defaults(work=_webhook)
    hook.add_argument(
        "--tls-cert", type=Path, default=os.environ.get("JOULEPATH_TLS_CERT", "/etc/joulepath/tls/tls.crt")
    )
    hook.add_argument("--tls-key", type=Path, default=os.environ.get("JOULEPATH_TLS_KEY", "/etc/joulepath/tls/tls.key"))
    hook.add_argument("--host", default="0.0.0.0")
    hook.add_argument("--port", type=int, default=_WEBHOOK_PORT)
    hook.add_argument("--health-port", type=int, default=_HEALTH_PORT)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
