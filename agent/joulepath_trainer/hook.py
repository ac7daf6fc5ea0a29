"""Runs a callback right after a given module has been imported, whoever imports it.

This is how the trainer gets into a process that knows nothing of it: nothing happens until user code imports
one of `MODULES`, and until then the cost is one look-up in a dictionary per import.
It must import nothing itself: it runs at the start of every Python process of a pod. To import `annotations` from
`__future__` would load that module too, an eighth of all that the start takes: types are quoted.
"""

import sys

TYPE_CHECKING: "Final" = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Final

    from joulepath_trainer.frameworks.adapters import Adapters

__all__ = ["MODULES", "PostImportHook", "adapters", "install"]

MODULES: "Final" = (
    "torch.distributed.pipelining.stage",
    "torch.distributed.pipelining.schedules",
    "torch.autograd",
    "torch.nn.modules.module",
    "torch._dynamo.trace_rules",
    "torch.optim.optimizer",
    "megatron.core.pipeline_parallel.schedules",
    "deepspeed.runtime.engine",
    "deepspeed.runtime.pipe.engine",
)
"""Whose import is followed; `joulepath_trainer.frameworks.adapters` says by what."""


class PostImportHook:
    """A finder that finds nothing by itself: it asks the others and adds the callback to what they found."""

    def __init__(self, callbacks: "Mapping[str, Callable[[ModuleType], None]]") -> None:
        self._callbacks = dict(callbacks)
        self._asking: set[str] = set()

    def find_spec(self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None) -> object:
        """The spec that the other finders have for the name, if it is one with a callback; None otherwise."""
        if name not in self._callbacks or name in self._asking:
            return None
        # Other tools' finders do the same as this one; the set keeps two of them from asking each other for ever.
        self._asking.add(name)
        try:
            for finder in tuple(sys.meta_path):
                find = getattr(finder, "find_spec", None)
                spec = find(name, path, target) if find is not None and find != self.find_spec else None
                if spec is not None:
                    self._follow(spec)
                    return spec
        finally:
            self._asking.discard(name)
        return None

    def _follow(self, spec: "ModuleSpec") -> None:
        loader, name = spec.loader, spec.name
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return

        def execute_and_call(module: "ModuleType") -> None:
            execute(module)
            # A loader of an archive is shared by the modules in it.
            if module.__name__ == name:
                self._call(module, loader)

        try:
            loader.exec_module = execute_and_call  # type: ignore[union-attr,method-assign]
        except (AttributeError, TypeError):
            _say(f"{name} is loaded by {type(loader).__name__}, which can't be followed; this rank is not observed")

    def _call(self, module: "ModuleType", loader: object) -> None:
        name = module.__name__
        try:
            vars(loader).pop("exec_module", None)
            callback = self._callbacks.pop(name, None)
            if callback is not None:
                callback(module)
        except Exception as error:
            _say(f"{name} can't be observed, training goes on without: {type(error).__name__}: {error}")


class _OnDemand:
    """The adapters, made when the first module that they observe has been imported."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._made: Adapters | None = None

    def get(self) -> "Adapters":
        if self._made is None:
            from joulepath_trainer.frameworks.adapters import Adapters

            self._made = Adapters(self._socket_path)
        return self._made


_installed: "list[_OnDemand]" = []
"""What observes this process: a loop that tells of itself asks for it."""


def install(socket_path: str) -> None:
    """Observes training in this process, once it trains, and tells the agent that listens at the socket."""
    on_demand = _OnDemand(socket_path)
    _installed[:] = [on_demand]
    hook = PostImportHook(dict.fromkeys(MODULES, lambda module: on_demand.get().observe(module)))
    sys.meta_path.insert(0, hook)  # type: ignore[arg-type]


def adapters() -> "Adapters | None":
    """What observes this process; None where nothing does."""
    return _installed[0].get() if _installed else None


def _say(sentence: str) -> None:
    sys.stderr.write(f"joulepath: {sentence}\n")
