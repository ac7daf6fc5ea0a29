"""Trainings that know nothing of Joulepath. They run in a rank's process and return what the test compares."""

from __future__ import annotations

import importlib
import inspect
import os
import socket
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import torch
from torch.distributed import pipelining
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, schedules
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, PipelineScheduleSingle
from torch.distributed.pipelining.stage import _PipelineStageBase
from torch.utils.data import DataLoader, Dataset

from joulepath_trainer import attempts
from joulepath_trainer.attempts import Attempt
from joulepath_trainer.frameworks.adapters import Adapters
from joulepath_trainer.identity import default_store
from joulepath_trainer.marking.cuda import Driver
from joulepath_trainer.marking.marks import choose_marker
from joulepath_trainer.memory import OwnPage
from tests.trainer.frameworks.overlapping import overlap
from virtual_gpus import stream

MICROBATCHES = 4
WIDTH = 8


def unhook() -> None:
    """Torch as it was before the hook."""
    for schedule in (PipelineScheduleSingle, PipelineScheduleMulti):
        schedule.step = schedule.step.__wrapped__
    for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
        setattr(_PipelineStageBase, name, getattr(_PipelineStageBase, name).__wrapped__)


class Training:
    """A pipeline over all ranks."""

    def __init__(self, rank: int, schedule: str = "Schedule1F1B", stages_of_rank: int = 1, loss_s: float = 0.0) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(7)
        world = torch.distributed.get_world_size()
        self.count = world * stages_of_rank
        self.indices = [rank + world * chunk for chunk in range(stages_of_rank)]
        models = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(self.count)]
        self.stages = [PipelineStage(models[i], i, self.count, torch.device("cpu")) for i in self.indices]
        parameters = [parameter for i in self.indices for parameter in models[i].parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1)
        kind = getattr(pipelining, schedule)
        stages = self.stages if stages_of_rank > 1 else self.stages[0]

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            time.sleep(loss_s)
            return torch.nn.functional.mse_loss(output, target)

        self.schedule = kind(stages, MICROBATCHES, loss_fn=loss)
        self.data = torch.randn(2 * MICROBATCHES, WIDTH)

    def _inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        first, last = 0 in self.indices, self.count - 1 in self.indices
        return ((self.data,) if first else ()), ({"target": self.data} if last else {})

    def step(self) -> list[float]:
        """One iteration; the losses of the microbatches on the last rank."""
        losses = self.round()
        self.update()
        return losses

    def round(self) -> list[float]:
        """The iteration without the optimizer."""
        args, kwargs = self._inputs()
        losses: list[torch.Tensor] = []
        self.schedule.step(*args, **kwargs, losses=losses)
        return [loss.item() for loss in losses]

    def update(self) -> None:
        """The optimizer's step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def evaluate(self) -> None:
        """A step without gradients."""
        args, kwargs = self._inputs()
        self.schedule.eval(*args, **kwargs)


def train(
    rank: int,
    steps: int,
    hooked: bool = True,
    evaluate_after: int = -1,
    **options: Any,
) -> list[list[float]]:
    """Trains; returns the losses of every step."""
    if not hooked:
        unhook()
    training = Training(rank, **options)
    losses = []
    for number in range(steps):
        torch.distributed.barrier()
        losses.append(training.step())
        if number == evaluate_after:
            training.evaluate()
    return losses


def train_in_turns(rank: int, steps: int, rounds: int, interleaved: bool = False) -> None:
    """Trains two pipelines that are alike, an iteration of each in turn: of one with so many rounds, the other one.

    interleaved: The other's iteration comes after the first round.
    """
    one, other = Training(rank), Training(rank)
    for _ in range(steps):
        torch.distributed.barrier()
        for number in range(rounds):
            one.round()
            if interleaved and number == 0:
                other.round()
        one.update()
        if not interleaved:
            other.round()
        other.update()


def train_noting(rank: int, steps: int, schedule: str, chunks: int = 1) -> list[list[list[Any]]]:
    """Kind, stage and microbatch of what torch has a stage compute, in each step."""
    torch.manual_seed(7)
    ran: list[list[Any]] = []

    class Noting(PipelineStage):  # type: ignore[misc]
        def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
            ran.append(["F", self.stage_index, fwd_chunk_id])
            return super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)

        def backward_one_chunk(
            self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, *args: Any, **kwargs: Any
        ) -> Any:
            ran.append(["B" if full_backward else "I", self.stage_index, bwd_chunk_id])
            return super().backward_one_chunk(bwd_chunk_id, loss, full_backward, *args, **kwargs)

        def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
            ran.append(["W", self.stage_index, bwd_chunk_id])
            return super().backward_weight_one_chunk(bwd_chunk_id, *args, **kwargs)

    count, is_v = 2 * chunks, schedule in ("ScheduleZBVZeroBubble", "ScheduleDualPipeV")
    own = [rank, count - 1 - rank] if is_v else list(range(rank, count, 2))
    stages = [Noting(torch.nn.Linear(WIDTH, WIDTH), stage, count, torch.device("cpu")) for stage in own]
    made = getattr(pipelining, schedule)(
        stages if chunks > 1 else stages[0], MICROBATCHES, loss_fn=torch.nn.functional.mse_loss
    )
    optimizer = torch.optim.SGD([one for stage in stages for one in stage.submod.parameters()], lr=0.1)
    data, orders = torch.ones(2 * MICROBATCHES, WIDTH), []
    for _ in range(steps):
        torch.distributed.barrier()
        made.step(*([data] if 0 in own else []), **({"target": data} if count - 1 in own else {}))
        optimizer.step()
        optimizer.zero_grad()
        orders.append(list(ran))
        ran.clear()
    return orders


def train_sharded(rank: int, steps: int, schedule: str, stages_of_rank: int) -> list[list[int]]:
    """Pipelines of two ranks, whose stages are sharded among two replicas (FSDP2)."""
    torch.manual_seed(7)
    mesh = torch.distributed.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "pp"))
    index, count = mesh.get_local_rank("pp"), 2 * stages_of_rank
    stages = []
    for number in range(index, count, 2):
        model = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())
        fully_shard(model, mesh=mesh["dp"])
        stages.append(PipelineStage(model, number, count, torch.device("cpu"), group=mesh.get_group("pp")))
    kind = getattr(pipelining, schedule)
    made = kind(stages if stages_of_rank > 1 else stages[0], MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
    optimizer = torch.optim.SGD([one for stage in stages for one in stage.submod.parameters()], lr=0.1)
    data = torch.ones(2 * MICROBATCHES, WIDTH)
    for _ in range(steps):
        torch.distributed.barrier()
        made.step(*([data] if index == 0 else []), **({"target": data} if index == 1 else {}))
        optimizer.step()
        optimizer.zero_grad()
    return [[index, mesh.get_local_rank("dp")]]


def train_accumulating(
    rank: int, rounds: list[int], evaluate: bool = False, evaluated: list[int] | None = None
) -> None:
    """Steps of an optimizer, after so many rounds of the schedule each; it evaluates after each round, or in some
    steps after the first one."""
    training = Training(rank)
    for step, number in enumerate(rounds):
        torch.distributed.barrier()
        for each in range(number):
            args, kwargs = training._inputs()
            training.schedule.step(*args, **kwargs)
            if evaluate or (each == 0 and step in (evaluated or ())):
                training.evaluate()
        training.optimizer.step()


def train_by_a_grad_scaler(rank: int, steps: int, skipped: int) -> list[bool]:
    """One step has gradients that are infinite, so that the optimizer makes none; whether it made each."""
    training = Training(rank)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=10**6)
    stepped = []
    for number in range(steps):
        torch.distributed.barrier()
        args, kwargs = training._inputs()
        training.schedule.step(*args, **kwargs)
        if number == skipped:
            for parameter in training.stages[0].submod.parameters():
                parameter.grad.fill_(float("inf"))
        scaler.scale(torch.zeros(()))  # the schedule has gone back by itself
        before = [parameter.clone() for parameter in training.stages[0].submod.parameters()]
        scaler.step(training.optimizer)
        scaler.update(1.0)
        after = training.stages[0].submod.parameters()
        stepped.append(not all(torch.equal(*pair) for pair in zip(before, after, strict=True)))
        training.optimizer.zero_grad()
    return stepped


def train_stepping_within_backwards(rank: int, steps: int) -> None:
    """Each parameter has an optimizer, which steps once its gradient is there."""
    training = Training(rank)

    def step(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> None:
        optimizer.step()
        parameter.grad = None

    for group in training.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.register_post_accumulate_grad_hook(partial(step, torch.optim.SGD([parameter], lr=0.1)))
    for _ in range(steps):
        torch.distributed.barrier()
        args, kwargs = training._inputs()
        training.schedule.step(*args, **kwargs)


def train_by_a_function_for_both(rank: int, steps: int, threads: bool) -> list[list[int]]:
    """DualPipeV, whose pairs of a forward and a backward are run by a function of the user's. Stage and microbatch of
    both, of each that ran."""
    torch.manual_seed(7)
    models = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)]
    stages = [PipelineStage(models[index], index, 4, torch.device("cpu")) for index in (rank, 3 - rank)]
    schedule = schedules.ScheduleDualPipeV(stages, MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
    ran: list[list[int]] = []

    def computing(*places: tuple[int, int]) -> AbstractContextManager[None]:
        ran.append([number for place in places for number in place])
        return nullcontext()

    overlap(schedule, stages, computing, threads=threads)
    data = torch.randn(2 * MICROBATCHES, WIDTH)
    for _ in range(steps):
        torch.distributed.barrier()
        schedule.step(*([data] if rank == 0 else []), **({"target": data} if rank == 0 else {}))
    return ran


def train_by_custom_functions(rank: int, steps: int) -> None:
    """A schedule whose computations are functions of the user's, which wait for their inputs by themselves."""
    training = Training(rank, "ScheduleInterleaved1F1B", 2)
    stages = {stage.stage_index: stage for stage in training.stages}

    def forward(action: Any, ctx: Any) -> None:
        schedule, index, number = ctx.schedule_ref, action.stage_index, action.microbatch_index
        if not stages[index].is_first and index - 1 not in stages:
            schedules._wait_batch_p2p(schedule.fwd_recv_ops.pop((index, number)))
        output = stages[index].forward_one_chunk(number, ctx.arg_mbs[number], ctx.kwarg_mbs[number])
        schedule._maybe_compute_loss(stages[index], output, ctx.target_mbs, number)

    training.schedule.register_custom_function(schedules.FORWARD, forward)
    for _ in range(steps):
        torch.distributed.barrier()
        training.step()


def train_by_another_torch(rank: int, steps: int, lost: str) -> None:
    """As if torch had other names for some of what is observed when it was imported."""
    unhook()
    optimizers = importlib.import_module("torch.optim.optimizer")
    optimizers._global_optimizer_post_hooks.clear()
    schedules._PipelineSchedule._maybe_compute_loss = schedules._PipelineSchedule._maybe_compute_loss.__wrapped__
    found = Adapters(os.environ["JOULEPATH_SOCKET"])
    hidden = {
        "computations": (_PipelineStageBase, "backward_one_chunk"),
        "schedules": (schedules, "PipelineScheduleMulti"),
    }
    owner, name = hidden[lost]
    kept = getattr(owner, name)
    delattr(owner, name)
    for module in (pipelining.stage, schedules):
        found.observe(module)
    setattr(owner, name, kept)
    found.observe(optimizers)
    train(rank, steps)


def train_once_failing(rank: int, steps: int, failing: int) -> list[str]:
    """Trains; the model fails at one step. Returns the type of the exception of each step, "" where there was none."""
    training = Training(rank)
    outcomes = []
    for number in range(steps):
        handle = None
        if number == failing:
            handle = training.stages[0].submod.register_forward_pre_hook(_fail)
        try:
            training.step()
            outcomes.append("")
        except Exception as error:
            outcomes.append(f"{type(error).__name__} from {type(error.__cause__).__name__}")
        if handle is not None:
            handle.remove()
    return outcomes


def _fail(*_: object) -> None:
    raise KeyError("on purpose")


def seqpacket_sockets(_: object = None) -> int:
    """How many sockets of the agent's type this process holds."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(descriptor))) as held:
                count += held.type == socket.SOCK_SEQPACKET
        except OSError:
            continue
    return count


def hold_sockets(rank: int) -> dict[str, list[int]]:
    """Trains and counts who holds the agent's socket: the rank, its forked workers, a process that it executes."""
    training = Training(rank)
    for _ in range(3):
        training.step()
    workers = DataLoader(_Counted(), num_workers=2, batch_size=None)
    counts = {"rank": [seqpacket_sockets()], "workers": list(workers)}
    training.step()
    return counts


class _Counted(Dataset[int]):  # type: ignore[misc]
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index >= 4:
            raise IndexError(index)
        return seqpacket_sockets()


def train_without_pipeline(rank: int, steps: int) -> None:
    """A loop with two optimizers, of which the second steps just as often."""
    models = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    for _ in range(steps):
        torch.distributed.barrier()
        for model, optimizer in zip(models, optimizers, strict=True):
            model(torch.ones(1, WIDTH)).sum().backward()
            optimizer.step()


def warm_up_without_pipeline(rank: int, steps: int) -> None:
    """Trains without a pipeline first, then with one."""
    train_without_pipeline(rank, steps)
    train(rank, steps)


def number_attempts(rank: int) -> list[list[int | None]]:
    """What three steps' questions give in each of three gangs that meet at one store, of clocks that differ."""
    found = []
    for began_s in (10, 20, 5):
        clock_s = 1_577_836_800 + began_s + 5000 * rank
        attempt = Attempt(partial(float, clock_s))
        torch.distributed.barrier()
        first = attempt.ask()
        torch.distributed.barrier()
        found.append([first, attempt.ask(), attempt.ask()])
    return found


def number_attempts_alone(rank: int, steps: int) -> list[int | None]:
    """What a rank finds where rank 0 has no trainer, whose clock goes on by three seconds at each look."""
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "3"
    attempt = Attempt(clock_s=partial(next, count(step=3)))
    found = [attempt.ask() for _ in range(steps)] if rank else []
    torch.distributed.barrier()
    return found


def number_attempts_beside_a_waiter(rank: int) -> tuple[int | None, bool]:
    """The number, found while another thread waits for something else at the store, and whether it still did."""
    meeting = default_store()
    if rank == 0:
        store = torch.distributed.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        meeting.set("port", str(store.port))
    else:
        store = torch.distributed.TCPStore("127.0.0.1", int(meeting.get("port")), None)
    setattr(attempts, "default_store", lambda: store)  # noqa: B010
    waiter = threading.Thread(target=_wait_in_vain, args=(store,), daemon=True)
    waiter.start()
    while not _waiting.is_set():
        time.sleep(0.01)
    attempt = Attempt(lambda: 1_577_836_807)
    number = attempt.ask()
    while number is None:
        time.sleep(0.05)
        number = attempt.ask()
    waits = waiter.is_alive()
    torch.distributed.barrier()
    return number, waits


_waiting = threading.Event()


def _wait_in_vain(store: Any) -> None:
    _waiting.set()
    with suppress(torch.distributed.DistStoreError):
        store.wait(["what nobody sets"], timedelta(seconds=3))


def signatures(rank: int) -> list[bool]:
    """Whether each wrapped method has the signature of torch's own."""
    wrapped = [PipelineScheduleSingle.step, PipelineScheduleMulti.step, _PipelineStageBase.forward_one_chunk]
    return [inspect.signature(each) == inspect.signature(each.__wrapped__) for each in wrapped]


def train_on_mesh(rank: int, names: list[str], sizes: list[int]) -> list[list[int]]:
    """Trains pipelines that are one dimension of a DeviceMesh; returns this rank's pipeline and coordinates."""
    mesh = torch.distributed.init_device_mesh("cpu", tuple(sizes), mesh_dim_names=tuple(names))
    group = mesh.get_group("pp")
    ranks = torch.distributed.get_process_group_ranks(group)
    index, count = ranks.index(rank), len(ranks)
    stage = PipelineStage(torch.nn.Linear(WIDTH, WIDTH), index, count, torch.device("cpu"), group=group)
    schedule = pipelining.ScheduleGPipe(stage, MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
    data = torch.ones(MICROBATCHES, WIDTH)
    for _ in range(3):
        torch.distributed.barrier()
        schedule.step(*([data] if index == 0 else []), **({"target": data} if index == count - 1 else {}))
    return [ranks, [mesh.get_local_rank(name) for name in ("dp", "tp")]]


def uses_driver(rank: int) -> bool:
    """Whether the trainer takes this process for one that uses a CUDA driver."""
    return Driver.in_use() is not None


def train_on_virtual_gpus(rank: int, steps: int, state: str) -> list[int]:
    """Each computation is a kernel on the rank's virtual GPU; the host runs ahead of it."""
    os.environ.update(VIRTUAL_GPUS_STATE=state, NVIDIA_VISIBLE_DEVICES="all")
    stream.set_device(rank)
    stream.attach_to_torch_distributed()
    training = Training(rank)
    stage = training.stages[0]
    stage.submod = _OnGpu(rank, stage.submod)
    for _ in range(steps):
        training.step()
    stream.synchronize()
    return []


def mark_another_device(rank: int, state: str) -> dict[str, Any]:
    """Marks kernels of GPU 1 in two threads, where GPU 0 is the current one of the first and none of the second."""
    os.environ.update(VIRTUAL_GPUS_STATE=state, NVIDIA_VISIBLE_DEVICES="all")
    stream.set_device(1)
    stream.set_device(0)
    # Torch as it would be with CUDA, where nobody has called set_device.
    torch.cuda.is_initialized = lambda: True
    torch.cuda.current_device = lambda: 0
    torch._C._cuda_getCurrentRawStream = lambda ordinal: {1: 0}[ordinal]
    page, marker = OwnPage(), choose_marker("cuda:1")
    marks = page.marks(marker)
    driver = Driver.loaded()
    assert driver is not None
    seconds, contexts = [], []

    def work() -> None:
        before = driver.current_context()
        place = marks.place()
        assert place is not None
        begin = marks.stamp(place, 1)
        with driver.within(driver.context_of(1)):
            stream.launch(1, "F")
        end = marks.stamp(place, 2)
        while not marks.passed(end):
            time.sleep(0.001)
        seconds.append(marks.seconds(begin, end))
        contexts.append((before, driver.current_context()))

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    _, released = driver.context_of(1), stream._driver().cuDevicePrimaryCtxRelease_v2(1)
    return {
        "kept": (released, driver.context_of(1)),
        "uuid": marker.gpu_uuid,
        "seconds": seconds,
        "as they were": [before == after for before, after in contexts],
        "own": contexts[1][0],
        "absent": driver.context_of(2),
    }


def time_on_virtual_gpus(rank: int, steps: int, state: str) -> list[float]:
    """The seconds of each iteration on the rank's stream, from its first computation to its last."""
    os.environ.update(VIRTUAL_GPUS_STATE=state, NVIDIA_VISIBLE_DEVICES="all")
    stream.set_device(rank)
    stream.attach_to_torch_distributed()
    training = Training(rank)
    training.stages[0].submod = _OnGpu(rank, training.stages[0].submod)
    driver = Driver.in_use()
    assert driver is not None
    seconds = []
    for _ in range(steps):
        torch.distributed.barrier()
        first, last = driver.create_event(), driver.create_event()
        driver.record_event(first, 0)
        training.step()
        driver.record_event(last, 0)
        stream.synchronize()
        seconds.append(driver.seconds_between(first, last))
    return seconds


class _OnGpu(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, stage: int, layer: torch.nn.Module) -> None:
        super().__init__()
        self.stage, self.layer = stage, layer

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return _Kernel.apply(self.layer(value), self.stage)


class _Kernel(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, stage: int) -> torch.Tensor:
        ctx.stage = stage
        stream.launch(stage, "F")
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        stream.launch(ctx.stage, "B")
        return gradient.clone(), None
