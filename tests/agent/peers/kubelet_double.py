"""A kubelet as far as an agent asks one: the devices that containers hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc

__all__ = ["kubelet_double", "served"]


@contextmanager
def served(
    path: Path, service: str, method: str, answer: Callable[[bytes, grpc.ServicerContext], bytes]
) -> Iterator[None]:
    """A gRPC service at this socket, whose one method answers so."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"unix://{path}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@contextmanager
def kubelet_double(path: Path, answer: Callable[[], bytes]) -> Iterator[None]:
    """Answers List at this socket with what it is given, a ListPodResourcesResponse."""
    with served(path, "v1.PodResourcesLister", "List", lambda request, context: answer()):
        yield
