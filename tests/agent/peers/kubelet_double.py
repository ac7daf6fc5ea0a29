"""A kubelet as far as an agent asks one: the devices that containers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc

__all__ = ["kubelet_double"]


@contextmanager
def kubelet_double(path: Path, answer: Callable[[], bytes]) -> Iterator[None]:
    """Answers List at this socket with what it is given, a ListPodResourcesResponse."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    listing = {"List": grpc.unary_unary_rpc_method_handler(lambda request, context: answer())}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", listing),))
    server.add_insecure_port(f"unix://{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()
