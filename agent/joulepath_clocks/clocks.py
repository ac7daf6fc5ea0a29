"""The clocks of a node: its GPUs, the ranks on them and what their agent says of them, put together.

`Clocks` knows no Kubernetes and measures nothing: who a peer is comes in as a function, where its pod stands, plans and
measurements from the agent, over the channel. Without one it goes on with the plans that it has, for their time to
live; and takes no new ranks.
"""

from __future__ import annotations

import faulthandler
import itertools
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final
from weakref import WeakValueDictionary

from joulepath_clocks.channel.server import Server
from joulepath_clocks.channel.words import (
    AgentWord,
    Asked,
    Came,
    ClocksWord,
    Dismiss,
    GpuNews,
    Heard,
    KnownLags,
    Looked,
    NodeNews,
    Placed,
    Play,
    PythonNews,
    Told,
)
from joulepath_clocks.endpoint import Endpoint
from joulepath_clocks.gpus.discovery import SILENT_S, Discovery, Looker
from joulepath_clocks.gpus.foreign import OnForeignClock
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.leasing import Leasing
from joulepath_clocks.gpus.looks import Computes, Looks, Watch
from joulepath_clocks.gpus.nvml import Gpu
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.peer import Identify, JobPod, Peer
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.ranks.group import Group
from joulepath_clocks.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S, TimeToLive
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_trainer.wire.messages import Hello, OldPython
from joulepath_warden.garbage import collect_often

__all__ = ["Clocks", "Paths"]

log = logging.getLogger(__name__)

_STUCK_S: Final = 2.0
"""A GPU's thread that hasn't turned for so long follows nobody."""
_HANGS_S: Final = 1.0
"""An order that NVML hasn't taken for so long: the warden is to reset that GPU as well."""
_LOOK_FOR_GPUS_S: Final = 30.0
_ANSWER_S: Final = 15.0
_COUNTS_S: Final = 1.0
"""What is ordered, and how often, changes all the time, and nobody looks more often."""
"""How long the agent may take to find a pod: it asks kubelet and API server."""
_DEAD_S: Final = 20
"""A process whose threads stand still for so long ends with a traceback, and its container is started anew."""
_ARM_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things of the node are."""

    socket: Path
    """Where ranks connect."""
    state_dir: Path
    """Folder with the sockets of warden and agent."""
    proc: Path = Path("/proc")
    """The host's."""

    @property
    def lock(self) -> Path:
        """Whoever makes the sockets holds it first, and for life: it would take them from another process of clocks."""
        return self.state_dir / "clocks.lock"

    @property
    def pods(self) -> Path:
        """Where each pod may have a folder, named by its UID, for a socket of its own."""
        return self.socket.parent / "pods"


class Clocks:
    """All of the process that sets clocks."""

    def __init__(
        self,
        nvml: Looker,
        identify: Identify,
        paths: Paths,
        *,
        look_for_gpus_s: float = _LOOK_FOR_GPUS_S,
        budget: Budget = BUDGET,
        on_foreign_clock: OnForeignClock = OnForeignClock.REASSERT,
        plan_time_to_live_s: float = DEFAULT_TIME_TO_LIVE_S,
        log_descriptor: int = 2,
    ) -> None:
        """Listens once there are GPUs. What a killed one left locked, the warden resets.

        Args:
            nvml: Where it looks for the GPUs of the node: `nvml.Nvml`.
            identify: Tells who is at the socket.
            paths: Where things of the node are.
            look_for_gpus_s: Between two looks for GPUs while there are none, or not all.
            budget: What peers may make it remember, compute and wait for.
            on_foreign_clock: What to do where somebody else sets a clock that is leased.
            plan_time_to_live_s: How long plans are played without news of them.
            log_descriptor: Where threads that stand still leave a traceback.

        Raises:
            OSError: A socket can't be made.
        """
        self._lease_ends: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._budget = budget
        self._on_foreign_clock = on_foreign_clock
        self._leasing = Leasing(paths.state_dir, self._is_well, self._revoked)
        self._setters: dict[str, ClockSetter] = {}
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(int.from_bytes(os.urandom(6)))
        """Of ranks and questions. Drawn, so that an answer to the process before this one is an answer to nobody. (By
        `os`, as `secrets` loads OpenSSL's libcrypto.)"""
        self._ranks: dict[str, Rank] = {}
        self._groups: WeakValueDictionary[tuple[object, ...], Group] = WeakValueDictionary()
        """Of tensor-parallel peers, for as long as one of them is there."""
        self._questions: dict[int, tuple[Asked, SimpleQueue[Placed]]] = {}
        self._pythons: dict[str, PythonNews] = {}
        """Of the pods, by UID, that told of one that is too old, the last ones: nobody says when such a pod goes."""
        self._time_to_live = TimeToLive(plan_time_to_live_s)
        self._expired = False
        self._armed_at_s, self._log_descriptor = 0.0, log_descriptor
        self._looks = Looks(self._active)
        self._counted: dict[str, GpuNews] = {}
        self._counted_at_s = -math.inf
        self._server = Server(paths.state_dir, self._news, self._hear, self._arm)
        self._make_endpoint = partial(
            Endpoint,
            paths.socket,
            identify,
            self._admit,
            self._tick,
            on_refusal=self._count_refusal,
            budget=budget,
            on_old_python=self._learn_python,
            pods=paths.pods,
            proc=paths.proc,
        )
        self._endpoint: Endpoint | None = None
        self._started = False
        self._discovery = Discovery(
            nvml, self._adopt, self._is_idle, lambda: self._leasing.in_doubt, proc=paths.proc, retry_s=look_for_gpus_s
        )

    def start(self) -> None:
        """Starts serving ranks."""
        self._started = True
        collect_often()
        for part in (self._leasing, self._looks, self._server, self._endpoint, self._discovery):
            if part is not None:
                part.start()

    def stop(self, grace_s: float) -> bool:
        """Releases every clock first, for as long as it takes within the grace, then the rest; whether all are."""
        self._started = False
        faulthandler.cancel_dump_traceback_later()
        self._discovery.stop()
        for rank in self.ranks:
            rank.close(End.AGENT_STOPPED)
        for setter in self._setters.values():
            setter.release()
        deadline = time.monotonic() + grace_s
        released = [setter.close(deadline - time.monotonic()) for setter in self._setters.values()]
        for part in (self._looks, self._endpoint, self._server, self._leasing):
            if part is not None:
                part.stop()
        return all(released)

    @property
    def hopeless(self) -> bool:
        """Whether only another container can help, which gets the driver's libraries when it is made."""
        return self._discovery.hopeless

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """The ranks that live."""
        return tuple(rank for rank in tuple(self._ranks.values()) if rank.alive)

    # GPUs

    def _adopt(self, gpus: Sequence[Gpu]) -> None:
        endpoint = self._endpoint or self._make_endpoint()
        setters = {gpu.uuid: ClockSetter(gpu, self._leasing, self._on_foreign_clock) for gpu in gpus}
        for uuid, setter in setters.items():
            setter.on_failure = partial(self._stop_rank, uuid, End.CLOCK_FAILED)
            setter.on_no_lease = partial(self._revoked, uuid)
            setter.on_yield = partial(self._stop_rank, uuid, End.FOREIGN_CLOCK)
        watches = {uuid: Watch(setter, partial(self._saw_other, uuid)) for uuid, setter in setters.items()}
        # Others iterate over these: they are replaced, never changed.
        self._setters = {**self._setters, **setters}
        self._watches = {**self._watches, **watches}
        if self._started and self._endpoint is None:
            endpoint.start()
        self._endpoint = endpoint

    def _is_idle(self) -> bool:
        return not self._ranks and not any(setter.leased for setter in self._setters.values())

    def _active(self) -> Collection[tuple[Watch, Computes]]:
        return [(self._watches[rank.setter.gpu.uuid], partial(getattr, rank, "computing")) for rank in self.ranks]

    def _saw_other(self, uuid: str, at_s: float, clock_mhz: int, foreign: bool) -> None:
        self._server.say(Looked(uuid, at_s, clock_mhz, foreign))

    # ranks

    def _admit(self, hello: Hello, peer: Peer, page: SharedPage) -> Rank:
        if hello.gpu_uuid is None:
            raise PeerRefusedError("NoGpu", "the hello names no GPU; a rank without a GPU needs no agent", final=True)
        if (most := max(len(hello.pipeline.stages), len(hello.pipeline.ranks))) > self._budget.stages:
            what = f"the hello names {most} stages or ranks of a pipeline, up to {self._budget.stages} are served"
            raise PeerRefusedError("TooManyStages", what, final=True)
        pod = self._locate(peer.pod_uid, hello.gpu_uuid)
        self._discovery.wake()
        setter = self._setters.get(hello.gpu_uuid)
        if setter is None:
            what = f"this node has no GPU {hello.gpu_uuid} whose clock can be set"
            raise PeerRefusedError("UnknownGpu", what)
        with self._lock:
            holder = self._ranks.get(hello.gpu_uuid)
            if holder is not None and not holder.process_gone():
                if not peer.pid or peer.pid != holder.peer.pid:
                    what = f"{holder.peer} already runs on {hello.gpu_uuid}"
                    raise PeerRefusedError("GpuClaimed", what)
                holder.close(End.CONNECTION_CLOSED)
            setter.settled.forget()
            rank = self._ranks[hello.gpu_uuid] = Rank(
                Came(next(self._numbers), hello.gpu_uuid, pod, hello.encode()),
                hello,
                peer,
                page,
                setter,
                self._count_lease_end,
                self._server.say,
                time_to_live=self._time_to_live,
                budget=self._budget,
                group=self._groups.setdefault(_stage_of(hello, pod), Group()),
            )
            setter.follow = rank.follow
        setter.rouse()
        self._server.wake()
        log.info("rank %d of %s runs on %s", hello.rank, pod.name, hello.gpu_uuid)
        return rank

    def _locate(self, pod_uid: str, gpu_uuid: str) -> JobPod:
        """Asks the agent. Called from the pool of the endpoint."""
        number, answer = next(self._numbers), SimpleQueue[Placed]()
        if not self._server.connected:
            raise PeerRefusedError("Unanswered", "the agent that knows pods isn't there; it is started anew")
        self._questions[number] = Asked(number, pod_uid, gpu_uuid), answer
        self._server.wake()
        try:
            placed = answer.get(timeout=_ANSWER_S)
        except Empty:
            raise PeerRefusedError("Unanswered", f"the agent hasn't found the pod within {_ANSWER_S:.0f} s") from None
        finally:
            del self._questions[number]
        if placed.pod is None:
            raise PeerRefusedError(placed.code, placed.message, final=placed.final)
        if placed.pod.uid != pod_uid:
            raise PeerRefusedError("Unanswered", "the agent answered for another pod")
        return placed.pod

    def _tick(self, now: float) -> None:
        for rank in tuple(self._ranks.values()):
            try:
                self._check(rank, now)
            except Exception:
                log.exception("looking after rank %d of %s failed", rank.hello.rank, rank.pod.name)
        expired = self._time_to_live.expired(now)
        if bool(expired) != self._expired:
            self._expired = bool(expired)
            log.warning("%s", f"default clocks: {expired}" if expired else "there is news of plans again")

    def _check(self, rank: Rank, now: float) -> None:
        if not rank.alive:
            with self._lock:
                if self._ranks.get(rank.setter.gpu.uuid) is rank:
                    del self._ranks[rank.setter.gpu.uuid]
                    rank.setter.follow = None
        elif now - rank.setter.turned_at_s > _STUCK_S:
            rank.stop(Reason(End.FOLLOWER_FAILED, "NVML hangs, or the log of the clocks says why"))
        else:
            rank.check_markers(now)

    def _arm(self, now: float) -> None:
        """The watchdog: as long as ranks and agent are served, it is put off. A GPU's own thread may hang in NVML."""
        serves = self._endpoint is None or now - self._endpoint.ticked_at_s < _STUCK_S
        if self._started and serves and now - self._armed_at_s >= _ARM_S:
            self._armed_at_s = now
            faulthandler.dump_traceback_later(_DEAD_S, exit=True, file=self._log_descriptor)

    def _stop_rank(self, uuid: str, end: End, what: str) -> None:
        rank = self._ranks.get(uuid)
        if rank is not None:
            rank.stop(Reason(end, what, final=end is End.CLOCK_FAILED))

    def _is_well(self, uuid: str) -> bool:
        """Whether the threads live on which a lease of the warden depends."""
        now, setter = time.monotonic(), self._setters[uuid]
        return setter.alive and now - setter.turned_at_s < _STUCK_S and setter.stuck_s(now) < _HANGS_S

    def _revoked(self, uuid: str, reason: str) -> None:
        """Without a lease of the warden: default clocks, and no plan before its next block begins."""
        self._setters[uuid].release()
        self._stop_rank(uuid, End.NO_WARDEN_LEASE, reason)

    def _count_lease_end(self, end: End) -> None:
        self._lease_ends[end] += 1

    def _count_refusal(self, code: str) -> None:
        self._refusals[code] += 1

    def _learn_python(self, pod_uid: str, python: OldPython) -> None:
        known = self._pythons | {pod_uid: PythonNews(pod_uid, python.version, python.needed)}
        self._pythons = dict(list(known.items())[-self._budget.pods :])  # replaced: another thread reads it
        self._server.wake()

    # the agent

    def _hear(self, word: AgentWord) -> None:
        ranks = {rank.number: rank for rank in self.ranks}
        match word:
            case Heard(at_s):
                self._time_to_live.renew(min(at_s, time.monotonic()))
            case Placed():
                if (question := self._questions.get(word.number)) is not None:
                    question[1].put(word)
            case KnownLags() if word.gpu_uuid in self._setters:
                self._setters[word.gpu_uuid].begin_with("up", word.up_s)
                self._setters[word.gpu_uuid].begin_with("down", word.down_s)
            case Play() if word.rank in ranks:
                why = Reason(Obstacle(word.code), word.message) if word.code else None
                ranks[word.rank].set_plan(word.plan or why)
            case Told() if word.rank in ranks:
                ranks[word.rank].learn(word)
            case Dismiss() if word.rank in ranks:
                self._dismiss(ranks[word.rank], word)
            case _:
                pass  # of what is gone by now

    def _dismiss(self, rank: Rank, word: Dismiss) -> None:
        log.warning("rank %d of %s is served no more: %s", rank.hello.rank, rank.pod.name, word.message)
        if word.code == End.GPU_SHARED:
            rank.close(End.GPU_SHARED)
        else:
            self._count_refusal(word.code)
            rank.close(End.CONNECTION_CLOSED)

    def _news(self) -> Mapping[object, ClocksWord]:
        now = time.monotonic()
        if now - self._counted_at_s >= _COUNTS_S:
            self._counted_at_s, self._counted = now, {}
        gpus = {uuid: _gpu_news(setter, now, self._counted.get(uuid)) for uuid, setter in self._setters.items()}
        self._counted = gpus
        news: dict[object, ClocksWord] = dict(gpus.items())
        news["node"] = self._node_news(now)
        news |= {("asked", number): asked for number, (asked, _) in tuple(self._questions.items())}
        news |= {("python", uid): python for uid, python in self._pythons.items()}
        for rank in self.ranks:
            news[rank.number] = rank.came
            news["now", rank.number] = rank.news
        return news

    def _node_news(self, now: float) -> NodeNews:
        """Well: a warden is there, NVML answers, ranks can connect and no clock is stuck; or there are no GPUs."""
        stuck = any(setter.stuck_s(now) > SILENT_S or not setter.alive for setter in tuple(self._setters.values()))
        well = self._discovery.well and not self._leasing.trouble and not stuck
        well = well and (self._endpoint is None or self._endpoint.listening)
        counts = dict(self._lease_ends), dict(self._refusals)
        return NodeNews(int(now), well, self._leasing.trouble, *counts, lost=self._server.lost)


def _gpu_news(setter: ClockSetter, now: float, counted: GpuNews | None) -> GpuNews:
    """A GPU as it is; what changes all the time as it was when last `counted`, if it was lately."""
    gpu = setter.gpu
    silent = gpu.silent_s(now) > SILENT_S
    return GpuNews(
        uuid=gpu.uuid,
        index=gpu.index,
        minor=gpu.minor,
        mig=gpu.mig,
        model=gpu.model,
        driver=gpu.driver,
        power_cap_w=gpu.power_cap_w,
        default_clock_mhz=gpu.default_clock_mhz,
        supported_clocks_mhz=gpu.supported_clocks_mhz,
        refused=gpu.refused or ("NVML doesn't answer for it, see the log of the clocks" if silent else None),
        ordered_mhz=(counted or setter).ordered_mhz,
        settled_mhz=setter.settled.clock_mhz,
        lag=setter.lag(),
        sets=(counted or setter).sets,
        failures=setter.failures,
        reasserted=setter.foreign.reasserted,
        yielded=setter.foreign.yielded,
    )


def _stage_of(hello: Hello, pod: JobPod) -> tuple[object, ...]:
    """What tensor-parallel peers have in common: job, attempt, replica and place in the pipeline."""
    ranks, alone = hello.pipeline.ranks, hello.tensor_parallel == 1 or hello.rank not in hello.pipeline.ranks
    return pod.job_key, hello.attempt, hello.data, hello.rank if alone else ranks.index(hello.rank), alone
