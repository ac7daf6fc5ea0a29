"""Work by torch: matrix products in bfloat16, which draw what training draws, and spinning kernels.

`torch.cuda._sleep(cycles)` is the spinning kernel of torch's own tests: one thread that reads the SM's clock
(ATen/cuda/Sleep.cu). A waiting NCCL kernel has more of them; several streams of it come nearer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from joulepath_load.work import NoWorkError

__all__ = ["TorchWork"]

_SIDE: Final = 8192
_SMALL_SIDE: Final = 512
_BATCH_S: Final = 0.03
_AHEAD: Final = 2
_SPINNERS: Final = 16
_TRIAL: Final = 8
_CYCLES: Final = 1_000_000


class TorchWork:
    """Work for the first GPU that torch sees.

    Raises:
        NoWorkError: There is none.
    """

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise NoWorkError(f"this Python has no torch ({error})") from None
        if not torch.cuda.is_available():
            raise NoWorkError(f"torch {torch.__version__} sees no GPU (torch.cuda.is_available() is False)")
        self._torch: Any = torch
        self._device = torch.device("cuda:0")
        torch.cuda.set_device(self._device)
        self._events: deque[Any] = deque()
        self._spinners = [torch.cuda.Stream() for _ in range(_SPINNERS)]
        self._factors = [torch.randn(_SIDE, _SIDE, device=self._device, dtype=torch.bfloat16) for _ in range(2)]
        self._product = torch.empty_like(self._factors[0])
        self._small = torch.randn(_SMALL_SIDE, _SMALL_SIDE, device=self._device, dtype=torch.bfloat16)
        self._small_product = torch.empty_like(self._small)
        self._products = max(1, round(_BATCH_S / self._seconds_of(self._multiply)))
        # Of default clocks: at lower ones a spin lasts longer.
        self._cycles = round(_BATCH_S * _CYCLES / self._seconds_of(lambda: torch.cuda._sleep(_CYCLES)))
        name = torch.cuda.get_device_name(self._device)
        self.name = f"torch {torch.__version__} on {name}, bfloat16 matrix products of side {_SIDE}"

    def compute(self) -> None:
        """See Work."""
        for _ in range(self._products):
            self._multiply()
        self._keep_ahead()

    def wait(self) -> None:
        """See Work."""
        current = self._torch.cuda.current_stream()
        for stream in self._spinners:
            stream.wait_stream(current)
            with self._torch.cuda.stream(stream):
                self._torch.cuda._sleep(self._cycles)
            current.wait_stream(stream)
        self._keep_ahead()

    def kernel(self) -> None:
        """See Work."""
        self._torch.matmul(self._small, self._small, out=self._small_product)

    def finish(self) -> None:
        """See Work."""
        self._events.clear()
        self._torch.cuda.synchronize()

    def stream(self) -> int:
        """See Work."""
        return int(self._torch.cuda.current_stream().cuda_stream)

    def _multiply(self) -> None:
        self._torch.matmul(self._factors[0], self._factors[1], out=self._product)

    def _keep_ahead(self) -> None:
        event = self._torch.cuda.Event(blocking=True)
        event.record()
        self._events.append(event)
        if len(self._events) > _AHEAD:
            self._events.popleft().synchronize()

    def _seconds_of(self, enqueue: Callable[[], object]) -> float:
        enqueue()
        self._torch.cuda.synchronize()
        begun_s = time.perf_counter()
        for _ in range(_TRIAL):
            enqueue()
        self._torch.cuda.synchronize()
        return max(1e-6, (time.perf_counter() - begun_s) / _TRIAL)
