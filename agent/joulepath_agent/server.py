"""What the agent serves over HTTP: metrics, and health apart from them, since a probe must not wait for NVML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from joulepath_crds.serving.guard import PATH, Guard
from joulepath_crds.serving.pages import Page, PageServer, kept, state

__all__ = ["serve_health", "serve_metrics"]

_KEPT_S: Final = 1.0


def serve_metrics(address: str, port: int, registry: CollectorRegistry, guard: Guard | None = None) -> PageServer:
    """Serves /metrics, at most a second old; by HTTPS where there is a guard.

    Raises:
        OSError: The port is taken.
    """
    page = kept(lambda: Page(generate_latest(registry), kind=CONTENT_TYPE_LATEST), _KEPT_S)
    return PageServer("metrics", address, port, {PATH: page}, guard)


def serve_health(address: str, port: int, healthy: Callable[[], bool], ready: Callable[[], bool]) -> PageServer:
    """Serves /healthz and /readyz.

    Raises:
        OSError: The port is taken.
    """
    return PageServer(
        "health", address, port, {"/healthz": lambda: state(healthy()), "/readyz": lambda: state(ready())}
    )
