"""The main job: two training jobs at once, from `kubectl apply` to measured savings and to their end.

`uneven` has stages of different length and an EnergyPlan that enforces; it goes on training for the other modules.
`even` has stages of one length; its EnergyPlan observes first, enforces then, and it is let end. Both are there since
the module before. What is measured meanwhile is asked for last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from demo.scraping import configuration, query
from joulepath_crds import EnergyPlanStatus, Estimate, JobPlanSpec, Phase, Purpose
from real_cluster import NotYetError, prometheus, until
from tests.end_to_end import jobs
from tests.end_to_end.product import JOBS, PYTHONPATH_IMAGE, WALL_CLOCK_AHEAD_S, Product, wait_ready
from tests.end_to_end.replay import replayed
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven", "even")]

DASHBOARD = Path(__file__).resolve().parents[2] / "charts/joulepath/dashboards/job.json"
MAY_BE_EMPTY = ("Ends of leases",)
"""Nothing has ended while the job runs."""
KNOWN = 0.0075
"""Half the width of savings that are known, as a fraction."""
START_S = 240
STEP_S = 240


SAY_HELLO: Final = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
sys.path.insert(0, "/joulepath")
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, PipelinePlace
rank, gpu, page = int(sys.argv[1]), os.environ["NVIDIA_VISIBLE_DEVICES"], OwnPage()
hello = Hello(rank, 0, 2, 0, gpu, "stream", PipelinePlace("Schedule1F1B", 2, 1, (rank,), (0, 1)))
while True:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(os.environ["JOULEPATH_SOCKET"])
            socket.send_fds(connection, [hello.encode()], [page.descriptor])
            print(gpu, connection.recv(4096), flush=True)
            connection.recv(1)
        except OSError as error:
            print(error, flush=True)
    time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def scraper(release: Product) -> Iterator[str]:
    """A Prometheus that scrapes the release's pods."""
    pods = json.loads(release.kubectl("get", "pods", "--output", "json"))["items"]
    with prometheus(configuration(pods)) as url:
        yield url


def plans_of(record: Recorder, job: str, purpose: Purpose) -> list[tuple[int, JobPlanSpec]]:
    """Every version of a job's plans, with its number."""
    told = [
        (one.version, JobPlanSpec.from_api(one.body["spec"])) for one in record.versions("jobplans") if not one.deleted
    ]
    return [(version, spec) for version, spec in told if spec.job == job and spec.purpose is purpose]


def eight_pairs(release: Product, record: Recorder, name: str) -> None:
    """Until so many pairs of blocks are measured; a plan that a busy host had refused is asked for anew."""
    ask = jobs.asking_anew(release.cluster, record, name)

    def look() -> None:
        ask()
        status = record.status(name)
        measured = status.phase is Phase.ACTIVE and status.plan and status.measured
        if not measured or measured.pairs < 8:
            raise NotYetError(f"{name} is {status.phase}: {status.message}")

    until(f"eight pairs of {name}", 2 * STEP_S, look, 0.5)


def half(interval: Estimate) -> float:
    """Of its width."""
    return (interval.ci95_high - interval.ci95_low) / 2


def surely(slowdown: Estimate) -> float:
    """A slowdown less twice its interval: a busy host delays a plan's iterations, nearly all critical, the more."""
    return 2 * slowdown.ci95_low - slowdown.mean


def test_pods_of_an_annotated_job_are_injected_and_all_ranks_report(release: Product, record: Recorder) -> None:
    record.wait(
        "uneven",
        "injection",
        START_S,
        lambda status: any((one.type, one.status) == ("Injected", "True") for one in status.conditions),
    )
    assert sorted(record.ranks("uneven")) == [0, 1, 2, 3]


def test_what_became_of_each_container_stands_in_the_nodes_reports(record: Recorder) -> None:
    for job in ("uneven", "even"):
        assert record.outcomes(job) == {"pytorch": "Injected"}


def test_observing_measures_no_saving(release: Product, record: Recorder) -> None:
    def known(status: EnergyPlanStatus) -> bool:
        """By eight pairs on a quiet host; one that is busy at first needs more of them."""
        return status.measured is not None and status.measured.pairs >= 8 and half(status.measured.savings) < KNOWN

    status = record.wait("even", "savings", START_S + STEP_S, known)
    assert status.measured is not None
    savings = status.measured.savings
    assert abs(savings.mean) < max(3 * half(savings), 1e-3), savings
    assert abs(savings.mean) < 0.01, savings
    patch = json.dumps({"spec": {"mode": "Enforce"}})
    release.cluster.kubectl("patch", "energyplan", "even", "--namespace", JOBS, "--type=merge", "--patch", patch)


def test_the_story_goes_from_pending_over_profiling_and_planned_to_active(record: Recorder) -> None:
    record.wait("uneven", "Active", STEP_S, lambda status: status.phase is Phase.ACTIVE)
    told = [one.body.get("status", {}).get("phase") for one in record.versions("energyplans", "uneven")]
    phases = [one for before, one in zip([None, *told], told, strict=False) if one and one != before]
    assert phases == ["Pending", "Profiling", "Planned", "Active"]
    assert record.status("uneven").topology is not None


def test_a_plan_begins_only_after_every_rank_has_it_ready(record: Recorder) -> None:
    for purpose in Purpose:
        first, *_ = plans = plans_of(record, "uneven", purpose)
        assert first[1].activate_at is None
        version, activated = next(one for one in plans if one[1].activate_at is not None)
        before = record.ranks("uneven", before=version)
        assert {rank.staged_hash for rank in before.values()} == {activated.hash}
        assert all(rank.iteration < (activated.activate_at or 0) for rank in before.values())


def test_all_ranks_apply_the_same_plan_and_clocks_are_locked(release: Product, record: Recorder) -> None:
    plan = record.plan("uneven")
    assert plan is not None
    assert record.applied("uneven") == plan.hash
    gpus = {rank.gpu_uuid for rank in record.ranks("uneven").values()}
    until("locked clocks", 30, lambda: any(release.gpus(node).locked() & gpus for node in ("node0", "node1")), 0.02)


def test_an_operator_that_is_killed_finds_its_plan_again_and_changes_nothing(
    release: Product, record: Recorder
) -> None:
    before, pod = record.plan("uneven"), release.pod("operator")
    told = len(record.versions("jobplans"))
    release.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    wait_ready(release, "deployment/joulepath-operator")
    record.wait("uneven", "savings", STEP_S, lambda status: status.measured is not None)
    mine = [one for one in record.versions("jobplans")[told:] if one.body["spec"]["job"] == "uneven"]
    assert record.plan("uneven") == before
    assert mine == []


def test_the_wall_clock_of_a_node_is_an_hour_ahead_and_that_has_changed_nothing(
    release: Product, record: Recorder
) -> None:
    text = release.kubectl("get", "leases", "--output", "json")
    renewed = {
        one["spec"]["holderIdentity"]: datetime.fromisoformat(one["spec"]["renewTime"])
        for one in json.loads(text)["items"]
    }
    ahead_s = (renewed["node1"] - renewed["node0"]).total_seconds()
    assert ahead_s == pytest.approx(WALL_CLOCK_AHEAD_S["node1"], abs=300), "each renews it every four minutes"
    logs = [
        release.cluster.kubectl("logs", "--namespace", JOBS, f"uneven-{role}-0", "--container", "pytorch")
        for role in ("master", "worker")
    ]
    begun = [int(re.findall(r" begins at (\d{10})", log)[0]) for log in logs]  # two ranks may share a line
    assert begun[1] - begun[0] == pytest.approx(3600, abs=300)
    # Nodes report one after the other.
    until("one plan", STEP_S, lambda: len({rank.applied_hash for rank in record.ranks("uneven").values()}) == 1)
    assert all(rank.blocks for rank in record.ranks("uneven").values())


def test_every_query_of_the_dashboard_finds_data(scraper: str) -> None:
    names = {"$namespace": JOBS, "$energyplan": "uneven", "$job": "uneven", "$__rate_interval": "1m"}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", ())]
    assert len(asked) > 20

    def answered() -> None:
        empty = []
        for title, expression in asked:
            for name, value in names.items():
                expression = expression.replace(name, value)
            if title not in MAY_BE_EMPTY and not query(scraper, expression):
                empty.append(f"{title}: {expression}")
        if empty:
            raise NotYetError(f"no data for {empty}")

    until("data for every query", 60, answered, 2)


def test_even_stages_save_little(release: Product, record: Recorder) -> None:
    eight_pairs(release, record, "even")
    plan, measured = record.status("even").plan, record.status("even").measured
    assert plan is not None
    assert 0 <= plan.predicted_savings < 0.03, plan
    assert measured is not None
    told = replayed(record, "even")
    assert -0.01 < told.savings < 0.03, told
    assert told.slowdown < 0.015, told
    # A busy host must not be sure of anything else.
    assert measured.savings.ci95_low < 0.03, measured.savings
    assert measured.savings.ci95_high > -0.01, measured.savings
    assert surely(measured.slowdown) < 0.015, measured.slowdown


def test_uneven_stages_save_much_and_the_interval_says_how_sure_that_is(release: Product, record: Recorder) -> None:
    eight_pairs(release, record, "uneven")
    status = record.status("uneven")
    assert status.measured is not None
    savings, slowdown = status.measured.savings, status.measured.slowdown
    assert 0.08 < savings.ci95_low < savings.mean < savings.ci95_high < 1, savings
    told = replayed(record, "uneven")
    assert told.savings > 0.08, told
    assert told.slowdown < 0.015, told
    assert surely(slowdown) < 0.015, slowdown
    assert status.savings is not None
    assert status.savings.startswith(f"{savings.mean * 100:.1f}% ± ")


def test_a_job_that_ends_leaves_no_lock_and_no_plan_and_keeps_its_profile(release: Product, record: Recorder) -> None:
    ranks = record.ranks("even").values()
    jobs.stop(release.cluster, "even", max(rank.iteration for rank in ranks) + jobs.AHEAD)
    jobs.phase(release.cluster, "even", "Succeeded")
    status = record.wait("even", "Completed", 60, lambda status: status.phase is Phase.COMPLETED)
    assert status.message.startswith("PyTorchJob even succeeded. Measured savings: ")
    gpus = {rank.gpu_uuid for rank in ranks}
    until("no JobPlan", 30, lambda: record.plan("even") is None)
    until("no lock", 30, lambda: not any(release.gpus(node).locked() & gpus for node in ("node0", "node1")))
    assert status.profile in record.living("energyprofiles")


def test_containers_with_gpus_of_one_pod_are_told_one_by_one_and_each_is_known_by_its_own_gpu(
    release: Product, record: Recorder
) -> None:
    job = jobs.waiting_job("pair", image=PYTHONPATH_IMAGE)
    pod = jobs.template(job)
    pod["nodeSelector"] = {"kubernetes.io/hostname": "node0"}  # where `even` has left its GPU
    (first,) = pod["containers"]
    sidecar = {**first, "name": "sidecar", "resources": {}}
    second = {**first, "name": "second", "command": ["python3", "-c", SAY_HELLO, "1"]}
    pod["containers"] = [{**first, "command": ["python3", "-c", SAY_HELLO, "0"]}, second, sidecar]
    jobs.apply(release.cluster, job)

    def both() -> None:
        if len(seen := record.ranks("pair")) < 2:
            raise NotYetError(f"{seen}, {record.outcomes('pair')}")

    until("both ranks", 120, both)
    until("their outcomes", 60, lambda: record.outcomes("pair") == {"pytorch": "Injected", "second": "Injected"})
    for rank, container in enumerate(("pytorch", "second")):
        gpu = record.ranks("pair")[rank].gpu_uuid
        chosen = ("--namespace", JOBS, "--container", container)
        assert gpu in release.cluster.kubectl("logs", "pair-master-0", *chosen)
    # The end of one is the end of its rank alone.
    release.cluster.kubectl("exec", "pair-master-0", *chosen, "--", "python3", "-c", "import os; os.kill(1, 15)")
    until("the end of one", 60, lambda: set(record.ranks("pair")) == {0})
    release.cluster.kubectl("delete", "pytorchjob", "pair", "--namespace", JOBS)
