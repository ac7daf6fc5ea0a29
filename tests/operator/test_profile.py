"""Profiles and delays, from what simulated ranks measure to what they were made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from joulepath_crds import Coordinates, InstructionTime, RankReport, Sweep
from joulepath_operator.facts.gang import Gang
from joulepath_operator.figures.coverage import coverage
from joulepath_operator.figures.profile import build_profile
from joulepath_operator.figures.timing.delays import measure_delays
from joulepath_planner import simulate
from tests.planner.pipelines import gpt3

NewWorld = Callable[..., Any]


def replicated(gang: Gang, data: int, tensor: int) -> Gang:
    """The same pipeline several times; tensor peer t draws 10% x t more power."""
    ranks: list[RankReport] = []
    for replica in range(data):
        for peer in range(tensor):
            for rank in gang.ranks:
                place = Coordinates(data=replica, pipeline=rank.coordinates.pipeline, tensor=peer)
                louder = tuple(
                    one.model_copy(update={"power_w": one.power_w * (1 + 0.1 * peer)}) for one in rank.instructions
                )
                update = {
                    "rank": len(ranks),
                    "gpu_uuid": f"GPU-{len(ranks)}",
                    "coordinates": place,
                    "data_parallel": data,
                    "tensor_parallel": tensor,
                    "instructions": louder,
                }
                ranks.append(rank.model_copy(update=update))
    gpu = next(iter(gang.gpus.values()))
    return Gang(
        gang.attempt,
        len(ranks),
        tuple(ranks),
        {rank.gpu_uuid: gpu.model_copy(update={"uuid": rank.gpu_uuid}) for rank in ranks},
        {rank.rank: 0.0 for rank in ranks},
    )


def swept(new_world: NewWorld) -> Gang:
    world = new_world()
    world.settle()
    while len(world._swept()) < 5:
        world.run(1)
    gang = Gang.of(world.nodes())
    assert gang is not None
    return gang


def test_offsets_cancel_and_delays_come_out_as_they_were_put_in(new_world: NewWorld) -> None:
    gang = swept(new_world)
    delays = measure_delays(gang, gang.topology())
    assert set(delays.transfers_s) == {e for s in range(7) for e in ((s, s + 1, "F"), (s + 1, s, "B"))}
    assert list(delays.transfers_s.values()) == pytest.approx([0.002] * 14, abs=3e-4)
    assert delays.overheads_s[0, "F"] == pytest.approx(0.0005)
    assert delays.overheads_s[7, "B"] == pytest.approx(0.0005)
    assert delays.tails_s == pytest.approx(dict.fromkeys(range(8), 0.03))


def test_gaps_of_instructions_that_always_waited_are_those_of_others(new_world: NewWorld) -> None:
    """A backward of the first stages always waits, unless a plan uses up its waits: then the host's gap counts."""
    gang = swept(new_world)
    edges = [edge for stage in range(7) for edge in ((stage, stage + 1, "F"), (stage + 1, stage, "B"))]
    truth = gpt3(
        transfer_s=dict.fromkeys(edges, 0.0005), overhead_s={(s, kind): 0.002 for s in range(8) for kind in "FB"}
    )
    seen = simulate(truth)
    ranks = tuple(
        rank.model_copy(
            update={
                "timeline": tuple(
                    InstructionTime(
                        instruction=str(event.instruction),
                        stage=rank.rank,
                        begin_s=event.start_s - 0.1 * rank.rank,
                        end_s=event.start_s + event.duration_s - 0.1 * rank.rank,
                    )
                    for event in seen.ranks[rank.rank]
                )
            }
        )
        for rank in gang.ranks
    )
    delays = measure_delays(Gang(0, 8, ranks, gang.gpus, gang.age_s), gang.topology())
    assert delays.transfers_s == pytest.approx(truth.transfer_s)
    assert delays.overheads_s == pytest.approx(truth.overhead_s)


def test_what_the_host_does_before_the_first_instruction_is_part_of_the_tail(new_world: NewWorld) -> None:
    gang = swept(new_world)
    later = tuple(
        one.model_copy(update={"begin_s": one.begin_s + 0.005, "end_s": one.end_s + 0.005})
        for one in gang.ranks[0].timeline
    )
    ranks = (gang.ranks[0].model_copy(update={"timeline": later}), *gang.ranks[1:])
    delays = measure_delays(Gang(0, 8, ranks, gang.gpus, gang.age_s), gang.topology())
    assert delays.tails_s[0] == pytest.approx(0.03 + 0.005 - 0.0005)
    assert delays.tails_s[1] == pytest.approx(0.03)


def test_delays_are_never_negative(new_world: NewWorld) -> None:
    gang = swept(new_world)
    early = [
        rank.model_copy(
            update={
                "timeline": tuple(
                    one.model_copy(update={"begin_s": one.begin_s - 0.01 if one.instruction[0] == "B" else one.begin_s})
                    for one in rank.timeline
                )
            }
        )
        for rank in gang.ranks
    ]
    delays = measure_delays(Gang(0, 8, tuple(early), gang.gpus, gang.age_s), gang.topology())
    assert min(delays.transfers_s.values()) >= 0


def test_replicas_and_tensor_peers_are_averaged(new_world: NewWorld) -> None:
    gang = swept(new_world)
    several = replicated(gang, data=2, tensor=2)
    topology = several.topology()
    assert (topology.data_parallel, topology.tensor_parallel, topology.stages) == (2, 2, 8)
    clocks = {one.clock_mhz for one in gang.ranks[0].instructions}
    single = build_profile(gang, gang.topology(), clocks, measure_delays(gang, gang.topology()), "gpt3")
    both = build_profile(several, topology, clocks, measure_delays(several, topology), "gpt3")
    for one, two in zip(single.stages, both.stages, strict=True):
        for kind, other in zip(one.kinds, two.kinds, strict=True):
            for point, average in zip(kind.points, other.points, strict=True):
                assert average.clock_mhz == point.clock_mhz
                assert average.time_s == pytest.approx(point.time_s)
                assert average.energy_j == pytest.approx(point.energy_j * 1.05)
                assert average.samples == 4 * point.samples
                assert average.time_standard_error_s == pytest.approx(point.time_standard_error_s / 2)


def test_a_power_of_nothing_is_no_measurement_and_spoils_no_profile(new_world: NewWorld) -> None:
    gang = swept(new_world)
    held_mhz = max({one.clock_mhz for one in gang.ranks[0].instructions})
    powerless = [
        one.model_copy(update={"power_w": 0.0}) if (one.clock_mhz, one.kind) == (held_mhz, "B") else one
        for one in gang.ranks[0].instructions
    ]
    ranks = (gang.ranks[0].model_copy(update={"instructions": tuple(powerless)}), *gang.ranks[1:])
    clocks = {one.clock_mhz for one in gang.ranks[0].instructions}
    assert coverage(gang.ranks, Sweep(clocks_mhz=tuple(clocks), iterations_per_block=3)).fewest == len(clocks)
    assert coverage(ranks, Sweep(clocks_mhz=tuple(clocks), iterations_per_block=3)).fewest == len(clocks) - 1
    spoiled = replace(gang, ranks=ranks)
    profile = build_profile(spoiled, gang.topology(), clocks, measure_delays(gang, gang.topology()), "gpt3")
    points = {kind.kind: [point.energy_j for point in kind.points] for kind in profile.stages[0].kinds}
    assert len(points["B"]) == len(points["F"]) - 1
    assert all(joules > 0 for joules in points["B"])


def test_default_clocks_are_written_as_the_clock_that_they_amount_to(new_world: NewWorld) -> None:
    gang = swept(new_world)
    profile = build_profile(gang, gang.topology(), {0}, measure_delays(gang, gang.topology()), "gpt3")
    assert {point.clock_mhz for stage in profile.stages for kind in stage.kinds for point in kind.points} == {1410}
    assert [one.clock_mhz for one in profile.blocking_power] == [1410]
    assert profile.job == "gpt3"


def test_default_clocks_of_capped_gpus_are_where_the_least_capped_settles_and_no_clock_above_is_a_point(
    new_world: NewWorld,
) -> None:
    gang = swept(new_world)
    held = sorted({one.clock_mhz for one in gang.ranks[0].instructions} - {0}, reverse=True)
    settles_mhz = held[1]
    uuids = [rank.gpu_uuid for rank in gang.ranks]
    settled = dict.fromkeys(uuids, settles_mhz - 15) | {uuids[3]: settles_mhz}
    gpus = {uuid: gang.gpus[uuid].model_copy(update={"settled_clock_mhz": settled[uuid]}) for uuid in uuids}
    capped = replace(gang, gpus=gpus)
    assert capped.default_clock_mhz == settles_mhz
    assert capped.topology() == gang.topology(), "heat makes no other shape of a job"
    profile = build_profile(capped, capped.topology(), {0, *held}, measure_delays(capped, capped.topology()), "gpt3")
    assert profile.default_clock_mhz == settles_mhz
    points = {point.clock_mhz: point for point in profile.stages[0].kinds[0].points}
    assert set(points) == {settles_mhz, *held[2:]}
    uncapped = build_profile(gang, gang.topology(), {0}, measure_delays(gang, gang.topology()), "gpt3")
    assert points[settles_mhz].time_s == uncapped.stages[0].kinds[0].points[0].time_s


def test_energy_of_an_iteration_is_work_and_waits(new_world: NewWorld) -> None:
    gang = swept(new_world)
    profile = build_profile(gang, gang.topology(), {0}, measure_delays(gang, gang.topology()), "gpt3")
    assert 5000 < profile.energy_per_iteration_j < 8000
