"""The steps of the demo, from nothing to a report."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console
from rich.live import Live

from demo import live, pictures, published
from demo.current_cluster import CurrentCluster
from demo.local_cluster import LocalCluster
from demo.manifests import VOLUMES_LABEL, energy_plan, job_namespace, python_volumes, pytorch_job
from demo.options import Options
from demo.place import JOB_NAMESPACE, RELEASE, RELEASE_NAMESPACE, REPOSITORY, Place
from demo.report import failures, report, scale_note, table
from demo.watching import Evidence, Snapshot, Watcher
from joulepath_crds import Phase
from real_cluster.progress import step

__all__ = ["DemoError", "run"]

_LOOK_S: Final = 2.0
_LOG_S: Final = 15.0
_STARTUP_S: Final = 240.0
_AFTERMATH_S: Final = 60.0
_STEP_S_PER_SCALE: Final = 4.0
_PAIRS: Final = 8
"""Of blocks, until savings are known, where they are measured twice."""


class DemoError(RuntimeError):
    """The run went wrong; the text says where, and where to look."""


def run(options: Options) -> int:
    """The whole demo; 0 if the measured savings and slowdown are good enough, else 1.

    Raises:
        PlaceError: The machine or the cluster lacks something.
        DemoError: The job or the plan failed.
    """
    console = Console() if sys.stdout.isatty() else Console(width=120)
    place = place_for(options)
    place.prepare()
    with installed(place, options, console) as prometheus:
        watcher = Watcher(place.kubeconfig, JOB_NAMESPACE, options.workload.name, prometheus)
        before = _watch(watcher, options, console, _is_measured) if options.workload.slower else None
        if before is not None:
            place.slow(options.workload.slower)
        final = _watch(watcher, options, console, _is_measured_beside if before is not None else _is_over)
        return _conclude(final, before, watcher.evidence, options, console)


def place_for(options: Options) -> Place:
    """The cluster that the options name."""
    return LocalCluster(options) if options.cluster == "local" else CurrentCluster(options)


@contextlib.contextmanager
def installed(place: Place, options: Options, console: Console) -> Iterator[str | None]:
    """Joulepath and the job in the cluster; what earlier runs left is removed first, and all of it at the end."""
    try:
        with step("removing what an earlier run left", 5):
            _clear(place)
        with step("helm install joulepath", 30), tempfile.TemporaryDirectory() as folder:
            values = Path(folder, "values.yaml")
            values.write_text(yaml.safe_dump(dict(place.values())))
            own = [f"--values={path}" for path in (values, *options.values)]
            arguments = ["--namespace", RELEASE_NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"]
            arguments += ["--take-ownership", "--force-conflicts"]  # CRDs outlive a release, whatever its namespace was
            place.helm("install", RELEASE, str(REPOSITORY / "charts/joulepath"), *arguments, *own)
        prometheus = place.scrape()
        _apply(place, job_namespace(JOB_NAMESPACE, options.injection))
        for volume in python_volumes(place.training()):
            _apply(place, volume)
        example = options.workload.example
        _apply(place, energy_plan(example, JOB_NAMESPACE, options.mode, options.granularity))
        job = pytorch_job(example, place.training(), options.training_steps, options.workload.arguments)
        _apply(place, job)
        console.print(f"kubectl apply: pytorchjob.yaml (annotated) and energyplan.yaml of examples/{example.name}")
        yield prometheus
    finally:
        if options.keep:
            console.print("\nAll is left up:", *place.tools(), sep="\n  ", highlight=False, soft_wrap=True)
        else:
            with step("removing job and release", 10):
                _clear(place)
            place.leave()


def _clear(place: Place) -> None:
    place.kubectl("delete", "namespace", JOB_NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "120s")
    volumes = ("persistentvolumes", f"--selector={VOLUMES_LABEL}={JOB_NAMESPACE}")
    place.kubectl("delete", *volumes, "--ignore-not-found", "--wait", "--timeout", "60s")
    place.helm("uninstall", RELEASE, "--namespace", RELEASE_NAMESPACE, "--ignore-not-found", "--wait")
    place.kubectl("delete", "namespace", RELEASE_NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "120s")


def _apply(place: Place, manifest: dict[str, Any]) -> None:
    place.kubectl("apply", "--filename", "-", stdin=yaml.safe_dump(manifest))


def _is_measured(snapshot: Snapshot) -> bool:
    measured = snapshot.status.measured
    return measured is not None and measured.pairs >= _PAIRS


def _is_measured_beside(snapshot: Snapshot) -> bool:
    plan, straggler = snapshot.status.plan, snapshot.status.straggler
    is_stretched = plan is not None and straggler is not None and straggler.hash == plan.hash
    return is_stretched and _is_measured(snapshot)


def _is_over(snapshot: Snapshot) -> bool:
    return snapshot.status.phase is Phase.COMPLETED


def _watch(watcher: Watcher, options: Options, console: Console, enough: Callable[[Snapshot], bool]) -> Snapshot:
    """Shows the run until it has come so far, or is done for a minute without that; the last snapshot."""
    begin, done_at = time.monotonic(), math.inf
    limit_s = _STARTUP_S + options.training_steps * _STEP_S_PER_SCALE * options.time_scale
    with _shown(options, console) as show:
        while (elapsed_s := time.monotonic() - begin) < limit_s:
            try:
                snapshot = watcher.look()
            except OSError as error:
                console.print(f"not readable for the moment: {error}", style="dim")
            else:
                show(snapshot, elapsed_s)
                if _ended(snapshot) or enough(snapshot):
                    return snapshot
                if snapshot.job == "Succeeded":
                    done_at = min(done_at, elapsed_s)
                    if elapsed_s - done_at > _AFTERMATH_S:
                        return snapshot
            time.sleep(_LOOK_S)
    raise DemoError(f"The job isn't done after {limit_s:.0f} s; run it with --keep and look at its pods.")


@contextlib.contextmanager
def _shown(options: Options, console: Console) -> Iterator[Callable[[Snapshot, float], None]]:
    """A live view where there is a terminal, else a line every now and then and at each new phase."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as screen:
            yield lambda snapshot, elapsed_s: screen.update(
                live.view(snapshot, elapsed_s, options.workload.name, options.training_steps), refresh=True
            )
        return
    told: tuple[float, Phase | None] = (-_LOG_S, None)

    def print_line(snapshot: Snapshot, elapsed_s: float) -> None:
        nonlocal told
        if elapsed_s - told[0] >= _LOG_S or snapshot.status.phase is not told[1]:
            print(live.line(snapshot, elapsed_s), flush=True)
            told = elapsed_s, snapshot.status.phase

    yield print_line


def _ended(snapshot: Snapshot) -> bool:
    """Whether the plan was given up after its savings were measured; raises where there is nothing to report."""
    refused = snapshot.status.phase is Phase.REFUSED
    if snapshot.job == "Failed":
        raise DemoError(f"The job failed: {snapshot.job_message} Run it with --keep and look at its pods' logs.")
    if refused and snapshot.status.measured is None:
        raise DemoError(f"The EnergyPlan was refused: {snapshot.status.message}")
    return refused


def _conclude(final: Snapshot, before: Snapshot | None, evidence: Evidence, options: Options, console: Console) -> int:
    workload = options.workload
    remarks = (*workload.notes(), scale_note(options.time_scale))
    lag_s = options.lag_ms / 1e3 * options.time_scale
    try:
        found = report(
            final.status,
            mode=options.mode,
            time_scale=options.time_scale,
            lag_s=lag_s,
            published_savings=workload.published(),
            remarks=remarks,
            before=None if before is None else before.status,
        )
    except ValueError as error:
        raise DemoError(f"There is nothing to report: {error}") from error
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    written = [options.out / "report.json"]
    reasons = list(failures(found))
    if before is not None and not _is_measured_beside(final):
        reasons.append(f"Nothing was measured with the others stretched to the straggler: {final.status.message}")
    if before is None and final.status.phase is not Phase.COMPLETED:
        reasons.append(f"The EnergyPlan ended {final.status.phase}: {final.status.message}")
    theirs = None if workload.published_savings is None else published.load(options.time_scale)
    drawings: dict[str, Callable[[], str]] = {
        "timeline.svg": lambda: pictures.timeline(final.status, evidence, workload.note),
        "frontier.svg": lambda: pictures.frontier(final.status, theirs, workload.note),
    }
    for name, draw in drawings.items() if found["predicted"] and before is None else ():
        try:
            (options.out / name).write_text(draw())
            written.append(options.out / name)
        except ValueError as error:
            reasons.append(f"{name} can't be drawn: {error}.")
    console.print()
    console.print(table(found, workload.note))
    for remark in remarks:
        console.print(f"- {remark}", style="dim", highlight=False)
    console.print("written:", *map(str, written), highlight=False, soft_wrap=True)
    for reason in reasons:
        console.print(f"FAILED: {reason}", style="bold red", highlight=False)
    return 1 if reasons else 0
