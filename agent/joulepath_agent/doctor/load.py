"""The process that loads a GPU (`joulepath_load`), seen from the doctor."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["MARKER_OFFSET", "MOST_WRITES", "TIMES_OFFSET", "Load", "LoadError"]

# The page, as `joulepath_load.markers` has it; a test holds both equal.
MARKER_OFFSET: Final = 64
TIMES_OFFSET: Final = 4096
MOST_WRITES: Final = 500
PAGE_BYTES: Final = TIMES_OFFSET + 4096
_AGENT_ROOT: Final = Path(__file__).parents[2]
_LAST_WORDS: Final = 400


class LoadError(RuntimeError):
    """There is no load, or it has failed; the text says why."""


class Load:
    """One process on one GPU, told what to do by lines of JSON."""

    def __init__(self, command: Sequence[str], uuid: str, timeout_s: float, *arguments: str) -> None:
        """Starts it and waits until it is ready.

        Args:
            command: Of the load, without its arguments.
            uuid: The only GPU that it sees.
            timeout_s: Until it has to be ready: torch takes seconds to import.
            arguments: In place of those that serve orders on a page.

        Raises:
            LoadError: It can't be had; with its own words.
        """
        descriptor = os.memfd_create("page")
        os.ftruncate(descriptor, PAGE_BYTES)
        self.page = mmap.mmap(descriptor, PAGE_BYTES)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        try:
            self._process = subprocess.Popen(
                [*command, *(arguments or ("--page", str(descriptor)))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=(descriptor,),
                env=_environment(uuid),
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise LoadError(f"{command[0]} can't be started: {error}") from None
        finally:
            os.close(descriptor)
        self._unread = b""
        try:
            hello = self._answer(timeout_s)
            if refused := hello.get("refused"):
                raise LoadError(str(refused))
        except LoadError:
            self.close()
            raise
        self.name = str(hello.get("name"))
        self.hello = hello

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, order: Mapping[str, Any]) -> None:
        """Gives an order; its answer is to be read by `answer`.

        Raises:
            LoadError: It is gone.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise LoadError(self._last_words()) from None

    def answer(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """The answer to the oldest order.

        Raises:
            LoadError: It failed, is gone or is silent.
        """
        answer = self._answer(timeout_s)
        if failed := answer.get("failed"):
            raise LoadError(str(failed))
        return answer

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """An order and its answer. Raises as these do."""
        self.tell({"do": do, **more})
        return self.answer()

    def close(self) -> None:
        """Kills it: nothing of it is worth waiting for."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError, ValueError):  # a thread that was left behind may write
                stream.close()  # type: ignore[union-attr]

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        deadline_s = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([output], [], [], max(0.0, deadline_s - time.monotonic()))
            if not ready:
                raise LoadError(f"the load says nothing for {timeout_s:.0f} s")
            if not (more := os.read(output, 1 << 16)):
                raise LoadError(self._last_words())
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise LoadError(f"the load says {line!r:.80}") from None
        return answer if isinstance(answer, dict) else {}

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the load has ended ({self._process.returncode}): {words[-1][-_LAST_WORDS:] if words else 'no words'}"


def _environment(uuid: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(_AGENT_ROOT), os.environ.get("PYTHONPATH"))))
    # A hook of the trainer has no business in a load.
    kept = {name: value for name, value in os.environ.items() if name != "JOULEPATH_SOCKET"}
    return {**kept, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": uuid}
