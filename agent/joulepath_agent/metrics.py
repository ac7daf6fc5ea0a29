"""The agent's metrics: one table, from which collectors are made and against which dashboards and alerts are checked.

Base units (watts, joules, hertz, seconds); GPU labels as users of dcgm-exporter know them. `labels` of a metric are
the same in every sample; what isn't known (a GPU without a rank has no pod) is the empty text. While no rank is on the
node, meters show what they showed when its GPUs were last looked at: a scrape opens no device.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from joulepath_agent.agent import Agent
from joulepath_agent.measuring.history import LIMITS
from joulepath_agent.rank import Rank
from joulepath_clocks.gpus.nvml import GpuError
from joulepath_crds import Arm, MetricRow
from joulepath_injector.words import Outcome

__all__ = ["TABLE", "AgentCollector"]

log = logging.getLogger(__name__)

_GPU: Final = ("gpu", "UUID", "hostname")
_RANK: Final = (*_GPU, "namespace", "pod", "job", "rank", "stage")


TABLE: Final[tuple[MetricRow, ...]] = (
    MetricRow("joulepath_gpu_power_watts", "gauge", _RANK, "Power of the GPU by its own sensor."),
    MetricRow("joulepath_gpu_energy_joules_total", "counter", _RANK, "Energy counter of the GPU, by NVML."),
    MetricRow("joulepath_gpu_sm_clock_hertz", "gauge", _RANK, "SM clock now."),
    MetricRow(
        "joulepath_gpu_locked_clock_hertz", "gauge", _RANK, "Clock that the agent has locked; 0 is default clocks."
    ),
    MetricRow(
        "joulepath_rank_iteration_seconds", "gauge", _RANK, "Median duration of the last iterations; 0 is unknown."
    ),
    MetricRow("joulepath_rank_control_seconds", "gauge", _RANK, "Median iteration at default clocks; 0 is unknown."),
    MetricRow("joulepath_rank_iteration_number", "gauge", _RANK, "Iteration that the GPU is at."),
    MetricRow(
        "joulepath_ranks_over_budget",
        "gauge",
        ("hostname", "reason"),
        "Ranks that aren't measured any more, by the limit that they are over.",
    ),
    MetricRow(
        "joulepath_log_dropped_lines_total",
        "counter",
        ("hostname",),
        "Lines of the agent's log that were dropped, as nobody read it.",
    ),
    MetricRow("joulepath_rank_block", "gauge", (*_RANK, "arm"), "1 for the arm that the iteration runs, else 0."),
    MetricRow("joulepath_clock_sets_total", "counter", _GPU, "Orders to set or reset the clock that NVML took."),
    MetricRow("joulepath_clock_set_failures_total", "counter", _GPU, "Such orders that NVML refused."),
    MetricRow(
        "joulepath_foreign_clocks_total",
        "counter",
        (*_GPU, "answer"),
        "Times that somebody else had set or reset a leased clock, by answer: reasserted or yielded.",
    ),
    MetricRow("joulepath_gpus", "gauge", ("hostname",), "GPUs whose clock can be set; 0 on a node without."),
    MetricRow("joulepath_clocks_up", "gauge", ("hostname",), "1 while the agent hears the node's clocks, else 0."),
    MetricRow(
        "joulepath_clocks_lost_messages_total",
        "counter",
        ("hostname",),
        "Messages of the clocks that the agent didn't take in time: measurements that are missing.",
    ),
    MetricRow("joulepath_warden_up", "gauge", ("hostname",), "1 while the node's warden leases clocks, else 0."),
    MetricRow("joulepath_leases", "gauge", ("hostname",), "Ranks whose clock the agent may hold locked."),
    MetricRow("joulepath_lease_ends_total", "counter", ("hostname", "reason"), "Leases that ended, by reason."),
    MetricRow(
        "joulepath_peer_refusals_total", "counter", ("hostname", "reason"), "Peers of the socket refused, by reason."
    ),
    MetricRow(
        "joulepath_injections_total",
        "counter",
        ("hostname", "outcome"),
        "Containers with GPUs of annotated jobs, by what the node's injector did: Injected, Late, Unsuited or Before.",
    ),
    MetricRow(
        "joulepath_switching_lag_seconds",
        "gauge",
        (*_GPU, "direction", "quantile"),
        "Lag from the order of a clock to the clock in force, once measured.",
    ),
    MetricRow("joulepath_agent_build_info", "gauge", ("hostname", "version"), "1, with the version of the agent."),
)

Sample = tuple[tuple[str, ...], float]


class AgentCollector(Collector):
    """Reads the agent when Prometheus asks."""

    def __init__(self, agent: Agent, hostname: str, dropped_lines: Callable[[], int]) -> None:
        """`dropped_lines` tells how many lines of the log nobody read."""
        self._agent, self._hostname, self._dropped_lines = agent, hostname, dropped_lines

    def collect(self) -> Iterator[Metric]:
        """One family for each row of the table."""
        samples = self._samples()
        for row in TABLE:
            family: CounterMetricFamily | GaugeMetricFamily
            if row.type == "counter":
                family = CounterMetricFamily(row.name, row.help, labels=row.labels)
            else:
                family = GaugeMetricFamily(row.name, row.help, labels=row.labels)
            for labels, value in samples[row.name]:
                family.add_metric(labels, value)
            yield family

    def _samples(self) -> Mapping[str, list[Sample]]:
        agent, host = self._agent, self._hostname
        samples: dict[str, list[Sample]] = {row.name: [] for row in TABLE}
        ranks = {rank.gpu_uuid: rank for rank in agent.ranks}
        for uuid, gpu in agent.gpus.items():
            rank = ranks.get(uuid)
            of_gpu = (str(gpu.index), uuid, host)
            of_rank = (*of_gpu, *_rank_labels(rank))
            if (meter := agent.meters.get(uuid)) is not None:
                for name, read, unit in (
                    ("joulepath_gpu_power_watts", meter.power_w, 1.0),
                    ("joulepath_gpu_energy_joules_total", meter.energy_j, 1.0),
                    ("joulepath_gpu_sm_clock_hertz", meter.sm_clock_mhz, 1e6),
                ):
                    samples[name] += _read(of_rank, read, unit)
            samples["joulepath_gpu_locked_clock_hertz"].append((of_rank, gpu.ordered_mhz * 1e6))
            samples["joulepath_clock_sets_total"].append((of_gpu, gpu.sets))
            samples["joulepath_clock_set_failures_total"].append((of_gpu, gpu.failures))
            samples["joulepath_foreign_clocks_total"] += [
                ((*of_gpu, "reasserted"), gpu.reasserted),
                ((*of_gpu, "yielded"), gpu.yielded),
            ]
            if (lag := gpu.lag) is not None:
                samples["joulepath_switching_lag_seconds"] += [
                    ((*of_gpu, "up", "0.5"), lag.up_median_s),
                    ((*of_gpu, "up", "0.95"), lag.up_p95_s),
                    ((*of_gpu, "down", "0.5"), lag.down_median_s),
                    ((*of_gpu, "down", "0.95"), lag.down_p95_s),
                ]
            if rank is not None:
                samples["joulepath_rank_iteration_seconds"].append((of_rank, rank.history.iteration_time_s))
                samples["joulepath_rank_control_seconds"].append((of_rank, rank.history.control_time_s))
                samples["joulepath_rank_iteration_number"].append((of_rank, rank.news.iteration))
                samples["joulepath_rank_block"] += [((*of_rank, arm), float(rank.news.arm is arm)) for arm in Arm]
        samples["joulepath_gpus"].append(((host,), len(agent.gpus)))
        samples["joulepath_clocks_up"].append(((host,), float(agent.connected)))
        samples["joulepath_clocks_lost_messages_total"].append(((host,), float(agent.node.lost)))
        samples["joulepath_warden_up"].append(((host,), float(not agent.node.trouble)))
        samples["joulepath_leases"].append(((host,), sum(rank.news.leased for rank in ranks.values())))
        over = Counter(rank.history.over_budget for rank in ranks.values())
        samples["joulepath_ranks_over_budget"] += [((host, limit), float(over[limit])) for limit in LIMITS]
        samples["joulepath_log_dropped_lines_total"].append(((host,), self._dropped_lines()))
        samples["joulepath_lease_ends_total"] += _counts(host, agent.node.lease_ends)
        samples["joulepath_peer_refusals_total"] += _counts(host, agent.node.refusals)
        outcomes = agent.injected.outcomes
        samples["joulepath_injections_total"] += [((host, one), float(outcomes[one])) for one in Outcome]
        samples["joulepath_agent_build_info"].append(((host, agent.version), 1.0))
        return samples


def _rank_labels(rank: Rank | None) -> tuple[str, ...]:
    if rank is None:
        return ("", "", "", "", "")
    where, stages = rank.pod, ",".join(map(str, rank.hello.pipeline.stages))
    return where.namespace, where.name, where.job, str(rank.hello.rank), stages


def _read(labels: tuple[str, ...], read: Callable[[], float], unit: float) -> Iterable[Sample]:
    try:
        return [(labels, read() * unit)]
    except GpuError as error:
        log.warning("%s; it is missing from the metrics", error)
        return []


def _counts(host: str, counted: Mapping[str, int]) -> Iterable[Sample]:
    return [((host, str(reason)), float(count)) for reason, count in sorted(counted.items())]
