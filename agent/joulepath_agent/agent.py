"""The agent of a node: what its clocks tell, what is measured, and the plans of its jobs, put together.

`Agent` knows no Kubernetes: where a pod stands comes in as a function, plans by `set_plans`, and what it knows goes out
as `report`. It orders no clock: what it says to the clocks they play by their own rules, and when it ends, they go on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import pydantic

from joulepath_agent.channel import Channel
from joulepath_agent.doctor.board import driver_version
from joulepath_agent.doctor.record import Record, RecordError
from joulepath_agent.gpus.energy import EnergyTrace, Sampler
from joulepath_agent.injection.registry import Registry
from joulepath_agent.part import part_of
from joulepath_agent.peers.devices import NodeGpu
from joulepath_agent.peers.locate import Locate
from joulepath_agent.policy import under
from joulepath_agent.rank import Rank
from joulepath_clocks.channel.words import (
    MOST_BYTES,
    Asked,
    Began,
    Came,
    ClocksWord,
    Dismiss,
    Gone,
    GpuNews,
    Heard,
    KnownLags,
    Looked,
    NodeNews,
    Placed,
    Play,
    PythonNews,
    RankNews,
    Recorded,
    Told,
    encode,
)
from joulepath_clocks.gpus.discovery import Discovery, Looker
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.nvml import Gpu, GpuError
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import (
    MOST_OLD_PYTHONS,
    POLICY_HEARD,
    POLICY_PAUSED,
    POLICY_PAUSING,
    POLICY_UNHEARD,
    EnergyPolicySpec,
    GpuReport,
    JobPlanSpec,
    JobReport,
    NodeReportStatus,
    OldPythonReport,
    RankReport,
    SwitchingLag,
)
from joulepath_trainer.wire.protocol import WireError
from joulepath_warden.garbage import collect_often

__all__ = ["Agent"]

log = logging.getLogger(__name__)

_LOOK_FOR_GPUS_S: Final = 30.0
_NO_NEWS: Final = NodeNews(0, False, "the clocks haven't said anything yet", {}, {}, 0)


class Agent:
    """All of the agent but its ties to Kubernetes and its metrics."""

    def __init__(
        self,
        nvml: Looker,
        locate: Locate,
        state_dir: Path,
        *,
        version: str = "",
        look_for_gpus_s: float = _LOOK_FOR_GPUS_S,
        budget: Budget = BUDGET,
        injected: Registry | None = None,
    ) -> None:
        """Begins to look for the clocks once started.

        Args:
            nvml: Where it reads the meters of the node's GPUs: `nvml.Nvml`.
            locate: Tells where a pod stands.
            state_dir: Folder with the clocks' socket, and the doctor's record if there is one.
            version: Of the agent, as it is reported.
            look_for_gpus_s: Between two looks for GPUs while there are none, or not all.
            budget: What peers may make it remember and compute.
            injected: What became of containers, to be told.
        """
        self.version = version
        self.injected = injected or Registry()
        self.gpus: dict[str, GpuNews] = {}
        """By UUID, as the clocks told last."""
        self.meters: dict[str, Gpu] = {}
        """The same GPUs, to be read here."""
        self.node = _NO_NEWS
        self.pythons: dict[str, PythonNews] = {}
        """Of pods, by UID, that are too old for the trainer, as clocks told last."""
        self._locate, self._state_dir, self._budget = locate, state_dir, budget
        self._with_lags: set[str] = set()
        """GPUs of which these clocks were told what a doctor has measured."""
        self._ranks: dict[int, Rank] = {}
        self._left: dict[str, Rank] = {}
        """By GPU, those that there were when the clocks were lost: the same clocks name them by the same numbers."""
        self._plans: tuple[Mapping[JobKey, JobPlanSpec | Reason], Collection[JobKey] | None] | None = None
        """And the jobs that these are all plans of, where it isn't all jobs; None until it has heard of any."""
        self._said: dict[int, tuple[Play | None, Told]] = {}
        """What each rank's clocks were last told."""
        self._saying = threading.Lock()
        self._policy: EnergyPolicySpec | None = None
        """None until it has heard of one, or that there is none: no plan is told before."""
        self._heard_at_s = self._policy_at_s = -math.inf
        """When there was news of plans last, and of the policy."""
        self._driver, self._told_record = "", ""
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="locate")
        self._rechecks = threading.Thread(target=self._recheck, name="recheck", daemon=True)
        self._sampler = Sampler(lambda: [rank.trace for rank in self.ranks])
        self._channel = Channel(state_dir, self._hear, self._greet, self._forget)
        self._discovery = Discovery(
            nvml, self._adopt, lambda: not self._ranks, lambda: (), proc=Path("/proc"), retry_s=look_for_gpus_s
        )

    def start(self) -> None:
        """Starts to listen to the clocks."""
        collect_often()
        for part in (self._sampler, self._discovery, self._rechecks, self._channel):
            part.start()

    def stop(self) -> None:
        """Ends its threads, in the background."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for part in (self._channel, self._discovery, self._sampler):
            part.stop()

    @property
    def connected(self) -> bool:
        """Whether the clocks are there."""
        return self._channel.connected

    @property
    def chosen(self) -> bool:
        """Whether this is the node's agent: a second one waits for it to end."""
        return self._channel.chosen

    @property
    def waits(self) -> bool:
        """Whether there is another one on this node, which alone may tell of it."""
        return self._channel.waits

    @property
    def ready(self) -> bool:
        """Whether the clocks are there and well: see NodeNews."""
        return self.connected and self.node.well

    @property
    def healthy(self) -> bool:
        """Whether its threads live and NVML gives hope: an agent that isn't is to be restarted."""
        return (self._channel.alive or not self._rechecks.is_alive()) and not self._discovery.hopeless

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """The ranks that the clocks serve."""
        return tuple(self._ranks.values())

    # plans

    @property
    def jobs(self) -> frozenset[JobKey]:
        """Those that they are of."""
        return frozenset(rank.pod.job_key for rank in self.ranks)

    def set_plans(self, plans: Mapping[JobKey, JobPlanSpec | Reason], jobs: Collection[JobKey] | None = None) -> None:
        """All plans that these jobs have now, or why one isn't played; None are all jobs.

        What is missing is withdrawn. Of ranks of other jobs nothing is said: they keep what they have.
        """
        self._plans = dict(plans), jobs
        self._heard_at_s = time.monotonic()
        for rank in self.ranks:
            self._say_plan(rank)
        self._greet()

    def forget_plans(self) -> None:
        """Nobody asks for plans any more: ranks that come are told none until there is news."""
        self._plans = None

    def set_policy(self, policy: EnergyPolicySpec) -> None:
        """The cluster's policy as it is now; an empty one where there is none."""
        self._policy, before = policy, self._policy
        self._policy_at_s = time.monotonic()
        if policy != before:
            if policy.paused or (before is not None and before.paused):
                log.info("%s", policy.why_paused if policy.paused else "the EnergyPolicy's pause is over")
            for rank in self.ranks:
                self._say_plan(rank)
        self._greet()

    def _say_plan(self, rank: Rank) -> None:
        with self._saying:
            if (policy := self._policy) is None or rank.number not in self._said:
                return
            plans, jobs = self._plans or ({}, ())
            plan: JobPlanSpec | Reason | None
            if jobs is None or rank.pod.job_key in jobs:
                plan = plans.get(rank.pod.job_key)
            elif policy.paused:  # it may play one that an agent before this one has heard of
                plan = Reason(Obstacle.PAUSED, policy.why_paused)
            else:
                return
            said, told = self._said[rank.number]
            gpu = self.gpus.get(rank.gpu_uuid)
            play = _play(rank, plan, policy, "" if gpu is None else gpu.model)
            if play.plan is not None:
                rank.play(play.plan)
            if play != said and self._channel.say(play):
                self._said[rank.number] = play, told

    def _say_told(self, rank: Rank) -> None:
        with self._saying:
            if rank.number not in self._said:
                return
            play, said = self._said[rank.number]
            told = rank.told
            if told != said and self._channel.say(told):
                self._said[rank.number] = play, told

    # the clocks

    def _greet(self) -> None:
        """Plans that are told again are no news: how old the last was, the clocks are told before them. Who can't hear
        the policy any more doesn't know whether it lets them go on."""
        if self._plans is not None:
            self._channel.say(Heard(min(self._heard_at_s, self._policy_at_s)))

    def _hear(self, word: ClocksWord) -> None:
        match word:
            case NodeNews():
                self.node = word
            case GpuNews():
                is_new = word.uuid not in self._with_lags
                self.gpus = {**self.gpus, word.uuid: word}
                if is_new:
                    self._with_lags.add(word.uuid)
                    self._say_lags(word)
            case Came():
                self._welcome(word)
            case PythonNews(uid):
                self.pythons = dict(list((self.pythons | {uid: word}).items())[-MOST_OLD_PYTHONS:])
            case Asked():
                self._pool.submit(self._place, word)
            case Looked():
                for rank in self.ranks:
                    if rank.gpu_uuid == word.gpu_uuid:
                        rank.trace.saw(word.at_s, word.clock_mhz, foreign=word.foreign)
            case Gone(number):
                self._ranks.pop(number, None)
                self._said.pop(number, None)
            case _ if (found := self._ranks.get(word.rank)) is not None:
                self._hear_of(found, word)

    def _hear_of(self, rank: Rank, word: RankNews | Began | Recorded) -> None:
        match word:
            case RankNews():
                rank.news = word
            case Began():
                rank.begin(word)
            case Recorded():
                try:
                    rank.record(word.message)
                except WireError as error:
                    self._channel.say(Dismiss(rank.number, "BadMessage", str(error)))
                self._say_told(rank)

    def _forget(self) -> None:
        """The clocks are gone: what they told is no more. Ranks that they still serve come again, and are known."""
        self.node = _NO_NEWS
        self.gpus = {uuid: replace(gpu, ordered_mhz=0) for uuid, gpu in self.gpus.items()}  # the warden resets
        self._with_lags.clear()
        with self._saying:
            self._left |= {rank.gpu_uuid: rank for rank in self._ranks.values()}
            self._ranks, self._said = {}, {}

    def _welcome(self, came: Came) -> None:
        self._pool.submit(self._discovery.wake)  # NVML may take seconds, and the clocks are being listened to here
        rank = self._left.pop(came.gpu_uuid, None)
        if rank is None or rank.number != came.rank:
            trace = EnergyTrace(lambda: self._energy_j(came.gpu_uuid))
            rank = Rank(came, trace, self._budget.among(len(self.gpus)))
        others = {one.number: one for one in self.ranks if one.gpu_uuid != came.gpu_uuid}
        with self._saying:
            self._ranks = {**others, came.rank: rank}
            self._said[came.rank] = None, Told(came.rank, (), 0.0, None, 0.0)
        if came.gpu_uuid in self.gpus:
            self._say_lags(self.gpus[came.gpu_uuid])  # a doctor may have come since
        self._say_plan(rank)
        self._say_told(rank)

    def _place(self, asked: Asked) -> None:
        try:
            pod = self._locate(asked.pod_uid, asked.gpu_uuid, self.node_gpus())
            answer = Placed(asked.number, pod)
        except PeerRefusedError as refusal:
            answer = Placed(asked.number, None, refusal.code, refusal.message, refusal.final)
        except Exception:
            log.exception("finding a pod failed")
            answer = Placed(asked.number, None, "Internal", "the agent failed to find this pod, see its log")
        self._channel.say(answer)

    def _recheck(self) -> None:
        """A claim may be shared with a pod that comes later: nobody asks for that at the socket."""
        while not self._stopping.wait(self._budget.recheck_s):
            known = self.node_gpus()
            for rank in self.ranks:
                try:
                    why = self._locate.part(rank.pod, rank.gpu_uuid, known)
                except Exception:
                    log.exception("asking for the holders of a GPU failed")
                    continue
                if why:
                    self._channel.say(Dismiss(rank.number, End.GPU_SHARED, why))

    def node_gpus(self) -> tuple[NodeGpu, ...]:
        """All GPUs: as the clocks told them, or as they are read here."""
        known: dict[str, Gpu | GpuNews] = {**self.meters, **self.gpus}
        return tuple(NodeGpu(gpu.uuid, gpu.index, gpu.minor, gpu.mig) for gpu in known.values())

    # meters

    def _adopt(self, gpus: Sequence[Gpu]) -> None:
        self.meters = {**self.meters, **{gpu.uuid: gpu for gpu in gpus}}
        self._driver = driver_version() or self._driver
        for gpu in gpus:
            if gpu.uuid in self.gpus:
                self._say_lags(self.gpus[gpu.uuid])

    def _energy_j(self, uuid: str) -> float:
        if uuid not in self.meters:
            raise GpuError(f"NVML doesn't show {uuid} to the agent")
        return self.meters[uuid].energy_now_j()

    def _held_back_by(self, uuid: str) -> str:
        """What the driver says holds back a GPU; nothing where it can't be asked."""
        try:
            return self.meters[uuid].held_back_by()
        except (GpuError, KeyError):
            return ""

    def _say_lags(self, gpu: GpuNews) -> None:
        """Tells the clocks the lags that a doctor has measured on this GPU with this driver."""
        self._driver = driver = driver_version() or self._driver
        if not driver:
            return
        try:
            record = Record.read(self._state_dir)
            found = None if record is None else record.examined(gpu.uuid, gpu.model, driver)
        except RecordError as error:
            if self._told_record != (told := str(error)):
                self._told_record = told
                log.warning("%s: lags are unknown until they are measured", told)
            return
        if found is not None:
            self._channel.say(KnownLags(gpu.uuid, found.lags_by_target(up=True), found.lags_by_target(up=False)))

    # telling

    @property
    def _policy_word(self) -> str:
        """Paused is said once the clocks tell of no rank that has a plan which it could begin."""
        if self._policy is None:
            return POLICY_UNHEARD
        if not self._policy.paused:
            return POLICY_HEARD
        rests = self.connected and all(rank.news.staged_hash is None for rank in self.ranks)
        return POLICY_PAUSED if rests else POLICY_PAUSING

    def report(self) -> NodeReportStatus:
        """All that the agent knows."""
        jobs: dict[JobKey, list[tuple[Rank, RankReport]]] = {}
        for rank in self.ranks:
            try:
                jobs.setdefault(rank.pod.job_key, []).append(
                    (rank, rank.report(partial(self._held_back_by, rank.gpu_uuid)))
                )
            except pydantic.ValidationError as error:
                log.warning("rank %d of %s isn't reported: %s", rank.hello.rank, rank.pod.name, error)
            self._say_told(rank)
        injector, injector_why = self.injected.injector
        return NodeReportStatus(
            agent_version=self.version,
            gpus=tuple(_gpu_report(gpu) for gpu in self.gpus.values()),
            jobs=tuple(_job_report(members) for _, members in sorted(jobs.items(), key=lambda item: item[0])),
            injection=self.injected.report(),
            injector=injector,
            injector_why=injector_why,
            old_pythons=tuple(OldPythonReport(**asdict(python)) for python in self.pythons.values()),
            policy=self._policy_word,
        )


def _play(rank: Rank, plan: JobPlanSpec | Reason | None, policy: EnergyPolicySpec, gpu_model: str) -> Play:
    if plan is None:
        return Play(rank.number, None)
    if isinstance(plan, JobPlanSpec):
        part = under(policy, rank.pod.namespace, gpu_model, part_of(plan, rank.hello.pipeline.stages, rank.hello.data))
    else:
        part = plan
    if isinstance(part, Reason):
        return Play(rank.number, None, part.code, part.message)
    play = Play(rank.number, part)
    if (size := len(encode(play))) <= MOST_BYTES:
        return play
    what = f"this rank's part of the plan has {size} bytes, up to {MOST_BYTES} are taken"
    return Play(rank.number, None, Obstacle.PLAN_UNREADABLE, what)


def _gpu_report(gpu: GpuNews) -> GpuReport:
    lag = gpu.lag
    return GpuReport(
        uuid=gpu.uuid,
        model=gpu.model,
        driver=gpu.driver,
        power_cap_w=gpu.power_cap_w,
        default_clock_mhz=gpu.default_clock_mhz,
        settled_clock_mhz=gpu.settled_mhz,
        supported_clocks_mhz=gpu.supported_clocks_mhz,
        locked=gpu.ordered_mhz != 0,
        lag=None if lag is None else SwitchingLag(**asdict(lag)),
        refused=gpu.refused,
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
