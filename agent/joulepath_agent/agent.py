"""The agent of a node: its GPUs, the ranks on them and the plans of their jobs, put together.

`Agent` knows no Kubernetes: who a peer is and where its pod stands come in as functions, plans by `set_plans`, and
what it knows goes out as `report`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import pydantic

from joulepath_agent.doctor.board import driver_version
from joulepath_agent.doctor.record import Record, RecordError
from joulepath_agent.endpoint import Endpoint
from joulepath_agent.follower import Follower
from joulepath_agent.gpus.discovery import SILENT_S, Discovery, Looker
from joulepath_agent.gpus.energy import EnergyTrace, Sampler
from joulepath_agent.gpus.foreign import OnForeignClock
from joulepath_agent.gpus.lease import End
from joulepath_agent.gpus.leasing import Leasing
from joulepath_agent.gpus.nvml import Gpu
from joulepath_agent.gpus.setter import ClockSetter
from joulepath_agent.peers.budget import BUDGET, Budget
from joulepath_agent.peers.devices import NodeGpu
from joulepath_agent.peers.peer import Identify, JobKey, JobPod, Locate, Peer
from joulepath_agent.peers.refusal import PeerRefusedError
from joulepath_agent.ranks.group import Group
from joulepath_agent.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S, TimeToLive
from joulepath_agent.ranks.page import SharedPage
from joulepath_agent.ranks.rank import Rank
from joulepath_agent.ranks.reason import Reason
from joulepath_crds import GpuReport, JobPlanSpec, JobReport, NodeReportStatus, RankReport
from joulepath_trainer.wire.messages import Hello

__all__ = ["Agent", "Paths"]

log = logging.getLogger(__name__)

_FOLLOWER_STUCK_S: Final = 2.0
_UNHEALTHY_S: Final = 10.0
_HANGS_S: Final = 1.0
"""An order that NVML hasn't taken for so long: the warden is to reset that GPU as well."""
_LOOK_FOR_GPUS_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things of the node are."""

    socket: Path
    """Where ranks connect."""
    state_dir: Path
    """Folder with the warden's socket, and the doctor's record if there is one."""
    proc: Path = Path("/proc")
    """The host's."""


class Agent:
    """All of the agent but its ties to Kubernetes and its metrics."""

    def __init__(
        self,
        nvml: Looker,
        identify: Identify,
        locate: Locate,
        paths: Paths,
        *,
        version: str = "",
        look_for_gpus_s: float = _LOOK_FOR_GPUS_S,
        budget: Budget = BUDGET,
        on_foreign_clock: OnForeignClock = OnForeignClock.REASSERT,
        plan_time_to_live_s: float = DEFAULT_TIME_TO_LIVE_S,
    ) -> None:
        """Listens once there are GPUs. What a killed agent left locked, the warden resets.

        Args:
            nvml: Where it looks for the GPUs of the node: `nvml.Nvml`.
            identify: Tells who is at the socket.
            locate: Tells where that pod stands.
            paths: Where things of the node are.
            version: Of the agent, as it is reported.
            look_for_gpus_s: Between two looks for GPUs while there are none, or not all.
            budget: What peers may make it remember, compute and wait for.
            on_foreign_clock: What to do where somebody else sets a clock that is leased.
            plan_time_to_live_s: How long plans are played without news of them.

        Raises:
            OSError: The socket can't be made.
        """
        self.version = version
        self.lease_ends: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self._locate = locate
        self._stopping = threading.Event()
        self._rechecks = threading.Thread(target=self._recheck, name="recheck", daemon=True)
        self._budget = budget
        self._on_foreign_clock = on_foreign_clock
        self._state_dir, self._told = paths.state_dir, ""
        self.leasing = Leasing(paths.state_dir, self._is_well, self._revoked)
        self.setters: dict[str, ClockSetter] = {}
        self._lock = threading.Lock()
        self._ranks: dict[str, Rank] = {}
        self._groups: WeakValueDictionary[tuple[object, ...], Group] = WeakValueDictionary()
        """Of tensor-parallel peers, for as long as one of them is there."""
        self._plans: dict[JobKey, JobPlanSpec | Reason] = {}
        self._time_to_live = TimeToLive(plan_time_to_live_s, time.monotonic())
        self._expired = False
        self._traces: dict[str, EnergyTrace] = {}
        self._follower = Follower(lambda: self.ranks)
        self._sampler = Sampler(lambda: [rank.trace for rank in self.ranks])
        self._make_endpoint = partial(
            Endpoint, paths.socket, identify, self._admit, self._tick, on_refusal=self._count_refusal, budget=budget
        )
        self._endpoint: Endpoint | None = None
        self._started = False
        self._discovery = Discovery(
            nvml,
            self._adopt,
            self._is_idle,
            lambda: self.leasing.in_doubt,
            proc=paths.proc,
            retry_s=look_for_gpus_s,
        )

    def start(self) -> None:
        """Starts serving ranks."""
        self._started = True
        for part in (self.leasing, self._follower, self._sampler, self._endpoint, self._discovery, self._rechecks):
            if part is not None:
                part.start()

    def stop(self, grace_s: float) -> bool:
        """Releases every clock first, for as long as it takes within the grace, then the rest; whether all are."""
        self._discovery.stop()
        self._stopping.set()
        for rank in self.ranks:
            rank.close(End.AGENT_STOPPED)
        for setter in self.setters.values():
            setter.release()
        deadline = time.monotonic() + grace_s
        released = [setter.close(deadline - time.monotonic()) for setter in self.setters.values()]
        self._follower.stop()
        self._sampler.stop()
        if self._endpoint is not None:
            self._endpoint.stop()
        self.leasing.stop()
        return all(released)

    @property
    def ready(self) -> bool:
        """Whether a warden is there, NVML answers, ranks can connect and no clock is stuck; or there are no GPUs."""
        now = time.monotonic()
        stuck = any(setter.stuck_s(now) > SILENT_S for setter in tuple(self.setters.values()))
        well = self._discovery.well and not self.leasing.trouble
        return well and not stuck and (self._endpoint is None or self._endpoint.listening)

    @property
    def healthy(self) -> bool:
        """Whether its threads live and NVML gives hope: an agent that isn't is to be restarted."""
        follows = not self._started or time.monotonic() - self._follower.looked_at_s < _UNHEALTHY_S
        serves = self._endpoint is None or self._endpoint.listening
        return follows and serves and not self._discovery.hopeless

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """The ranks that live."""
        return tuple(rank for rank in tuple(self._ranks.values()) if rank.alive)

    def set_plans(self, plans: Mapping[JobKey, JobPlanSpec | Reason]) -> None:
        """All plans that there are now, or why one isn't played; what is missing is withdrawn, the others live on."""
        with self._lock:
            self._plans = dict(plans)
            ranks = self.ranks
        for rank in ranks:
            rank.set_plan(self._plan_of(rank))
        self._time_to_live.renew(time.monotonic())

    def report(self) -> NodeReportStatus:
        """All that the agent knows."""
        jobs: dict[JobKey, list[tuple[Rank, RankReport]]] = {}
        for rank in self.ranks:
            try:
                jobs.setdefault(rank.pod.job_key, []).append((rank, rank.report()))
            except pydantic.ValidationError as error:
                log.warning("rank %d of %s isn't reported: %s", rank.hello.rank, rank.pod.name, error)
        return NodeReportStatus(
            agent_version=self.version,
            gpus=tuple(_gpu_report(setter) for setter in self.setters.values()),
            jobs=tuple(_job_report(members) for _, members in sorted(jobs.items(), key=lambda item: item[0])),
        )

    def _adopt(self, gpus: Sequence[Gpu]) -> None:
        endpoint = self._endpoint or self._make_endpoint()
        setters = {gpu.uuid: ClockSetter(gpu, self.leasing, self._on_foreign_clock) for gpu in gpus}
        for uuid, setter in setters.items():
            setter.on_failure = partial(self._clock_failed, uuid)
            setter.on_no_lease = partial(self._revoked, uuid)
            setter.on_yield = partial(self._yielded, uuid)
            self._learn_lags(setter)
        # Others iterate over these: they are replaced, never changed.
        self.setters = {**self.setters, **setters}
        self._traces = {**self._traces, **{uuid: EnergyTrace(setter) for uuid, setter in setters.items()}}
        if self._started and self._endpoint is None:
            endpoint.start()
        self._endpoint = endpoint

    def _is_idle(self) -> bool:
        return not self._ranks and not any(setter.leased for setter in self.setters.values())

    def _learn_lags(self, setter: ClockSetter) -> None:
        """Gives it the lags that a doctor has measured on this GPU with this driver."""
        if not (driver := driver_version()):
            return
        try:
            record = Record.read(self._state_dir)
            found = None if record is None else record.examined(setter.gpu.uuid, setter.gpu.model, driver)
        except RecordError as error:
            if self._told != (told := str(error)):
                self._told = told
                log.warning("%s: lags are unknown until they are measured", told)
            return
        if found is not None:
            setter.begin_with("up", found.lags_s(up=True))
            setter.begin_with("down", found.lags_s(up=False))

    def _plan_of(self, rank: Rank) -> JobPlanSpec | Reason | None:
        return self._plans.get(rank.pod.job_key)

    def _admit(self, hello: Hello, peer: Peer, page: SharedPage) -> Rank:
        if hello.gpu_uuid is None:
            raise PeerRefusedError("NoGpu", "the hello names no GPU; a rank without a GPU needs no agent", final=True)
        if (most := max(len(hello.pipeline.stages), len(hello.pipeline.ranks))) > self._budget.stages:
            what = f"the hello names {most} stages or ranks of a pipeline, up to {self._budget.stages} are served"
            raise PeerRefusedError("TooManyStages", what, final=True)
        pod = self._locate(peer.pod_uid, hello.gpu_uuid, self._node_gpus())
        self._discovery.wake()
        setter = self.setters.get(hello.gpu_uuid)
        if setter is None:
            what = f"this node has no GPU {hello.gpu_uuid} whose clock can be set"
            raise PeerRefusedError("UnknownGpu", what)
        self._learn_lags(setter)  # a doctor may have come since
        with self._lock:
            holder = self._ranks.get(hello.gpu_uuid)
            if holder is not None and not holder.process_gone():
                if holder.peer.pid != peer.pid:
                    what = f"process {holder.peer.pid} already runs on {hello.gpu_uuid}"
                    raise PeerRefusedError("GpuClaimed", what)
                holder.close(End.CONNECTION_CLOSED)
            setter.settled.forget()
            budget = self._budget.among(len(self.setters))
            group = self._groups.setdefault(_stage_of(hello, pod), Group())
            rank = Rank(
                hello,
                peer,
                page,
                pod,
                setter,
                self._traces[hello.gpu_uuid],
                self._count_lease_end,
                budget,
                group,
                time_to_live=self._time_to_live,
            )
            self._ranks[hello.gpu_uuid] = rank
        rank.set_plan(self._plan_of(rank))
        log.info("rank %d of %s runs on %s", hello.rank, pod.name, hello.gpu_uuid)
        return rank

    def _recheck(self) -> None:
        """A claim may be shared with a pod that comes later: nobody asks for that at the socket."""
        while not self._stopping.wait(self._budget.recheck_s):
            for rank in self.ranks:
                try:
                    why = self._locate.part(rank.pod, rank.setter.gpu.uuid, self._node_gpus())
                except Exception:
                    log.exception("asking for the holders of a GPU failed")
                    continue
                if why:
                    log.warning("rank %d of %s is served no more: %s", rank.hello.rank, rank.pod.name, why)
                    rank.close(End.GPU_SHARED)

    def _node_gpus(self) -> tuple[NodeGpu, ...]:
        gpus = (setter.gpu for setter in self.setters.values())
        return tuple(NodeGpu(gpu.uuid, gpu.index, gpu.minor, gpu.mig) for gpu in gpus)

    def _tick(self, now: float) -> None:
        stuck = now - self._follower.looked_at_s > _FOLLOWER_STUCK_S
        for rank in tuple(self._ranks.values()):
            if not rank.alive:
                with self._lock:
                    if self._ranks.get(rank.setter.gpu.uuid) is rank:
                        del self._ranks[rank.setter.gpu.uuid]
            elif stuck:
                rank.stop(Reason(End.FOLLOWER_FAILED, "see the agent's log"))
            else:
                rank.check_markers(now)
        expired = self._time_to_live.expired(now)
        if bool(expired) != self._expired:
            self._expired = bool(expired)
            log.warning("%s", f"default clocks: {expired}" if expired else "there is news of plans again")

    def _clock_failed(self, uuid: str, reason: str) -> None:
        rank = self._ranks.get(uuid)
        if rank is not None:
            rank.stop(Reason(End.CLOCK_FAILED, reason, final=True))

    def _yielded(self, uuid: str, reason: str) -> None:
        """Somebody else sets its clock: default clocks, and no plan before its next block begins."""
        rank = self._ranks.get(uuid)
        if rank is not None:
            rank.stop(Reason(End.FOREIGN_CLOCK, reason))

    def _is_well(self, uuid: str) -> bool:
        """Whether the threads live on which a lease of the warden depends."""
        now, setter = time.monotonic(), self.setters[uuid]
        follows = now - self._follower.looked_at_s < _FOLLOWER_STUCK_S
        return follows and setter.alive and setter.stuck_s(now) < _HANGS_S

    def _revoked(self, uuid: str, reason: str) -> None:
        """Without a lease of the warden: default clocks, and no plan before its next block begins."""
        self.setters[uuid].release()
        rank = self._ranks.get(uuid)
        if rank is not None:
            rank.stop(Reason(End.NO_WARDEN_LEASE, reason))

    def _count_lease_end(self, end: End) -> None:
        self.lease_ends[end] += 1

    def _count_refusal(self, code: str) -> None:
        self.refusals[code] += 1


def _stage_of(hello: Hello, pod: JobPod) -> tuple[object, ...]:
    """What tensor-parallel peers have in common: job, attempt, replica and place in the pipeline."""
    ranks, alone = hello.pipeline.ranks, hello.tensor_parallel == 1 or hello.rank not in hello.pipeline.ranks
    return pod.job_key, hello.attempt, hello.data, hello.rank if alone else ranks.index(hello.rank), alone


def _gpu_report(setter: ClockSetter) -> GpuReport:
    gpu = setter.gpu
    silent = gpu.silent_s(time.monotonic()) > SILENT_S
    return GpuReport(
        uuid=gpu.uuid,
        model=gpu.model,
        default_clock_mhz=gpu.default_clock_mhz,
        settled_clock_mhz=setter.settled.clock_mhz,
        supported_clocks_mhz=gpu.supported_clocks_mhz,
        locked=setter.ordered_mhz != 0,
        lag=setter.lag(),
        refused=gpu.refused or ("NVML doesn't answer for it, see the agent's log" if silent else None),
    )


def _job_report(members: list[tuple[Rank, RankReport]]) -> JobReport:
    """Ranks of an attempt that is over may live on for a moment: the latest attempt is the job's."""
    attempt = max(rank.hello.attempt for rank, _ in members)
    latest = [(rank, report) for rank, report in members if rank.hello.attempt == attempt]
    first = latest[0][0]
    return JobReport(
        job_uid=first.pod.job_uid,
        namespace=first.pod.namespace,
        job=first.pod.job,
        attempt=attempt,
        world_size=first.hello.world_size,
        ranks=tuple(sorted((report for _, report in latest), key=lambda report: report.rank)),
    )
