"""The live view: the EnergyPlan's story above, its ranks below."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.watching import RankView, Snapshot

__all__ = ["line", "view"]

_STORY: Final = ("Pending", "Profiling", "Planned", "Active", "Completed")


def view(snapshot: Snapshot, elapsed_s: float, name: str, steps: int) -> RenderableType:
    """What the terminal shows at this moment; `name` is that of plan and job."""
    status = snapshot.status
    story = Text(" → ".join(_STORY))
    if status.phase in _STORY:
        story.highlight_words([status.phase], style="bold green")
    lines = [story, Text(status.message or "waiting for the operator")]
    if plan := status.plan:
        lines.append(
            Text(
                f"plan {plan.hash}, {plan.granularity}: {plan.iteration_time_s:.3f} s an iteration (T_min "
                f"{plan.t_min_s:.3f} s), {plan.predicted_savings:.1%} predicted, "
                f"at most {plan.bound_savings:.1%} possible"
            )
        )
    lines.append(Text(f"savings measured: {status.savings or 'not yet known'}"))
    title = f"EnergyPlan {name}: {status.phase}, {elapsed_s:.0f} s"
    return Group(Panel(Group(*lines), title=title, title_align="left"), _ranks(snapshot, name, steps))


def _ranks(snapshot: Snapshot, name: str, steps: int) -> Table:
    power = [rank.power_w for rank in snapshot.ranks if rank.power_w is not None]
    total = f", {sum(power):.0f} W together" if power else ""
    table = Table(title=f"PyTorchJob {name}: {snapshot.job or 'not started'}{total}", title_justify="left")
    for name in ("rank", "node", "stage", "iteration", "seconds", "clock", "power", "state"):
        table.add_column(name, justify="left" if name in ("node", "state") else "right")
    for rank in snapshot.ranks:
        table.add_row(*_cells(rank, steps))
    return table


def _cells(view: RankView, steps: int) -> tuple[str, ...]:
    report = view.report
    return (
        str(report.rank),
        view.node,
        ",".join(map(str, report.stages)),
        f"{report.iteration} of {steps}",
        f"{report.iteration_time_s:.3f}" if report.iteration_time_s else "",
        "" if view.clock_mhz is None else f"{view.clock_mhz:.0f} MHz",
        "" if view.power_w is None else f"{view.power_w:.0f} W",
        f"{report.state}{': ' if report.reason else ''}{report.reason}",
    )


def line(snapshot: Snapshot, elapsed_s: float) -> str:
    """The same in a line, for a log."""
    iteration = max((rank.report.iteration for rank in snapshot.ranks), default=0)
    job = snapshot.job or "not started"
    status = snapshot.status
    ranks = f"job {job}, {len(snapshot.ranks)} ranks, iteration {iteration}"
    return f"{elapsed_s:4.0f} s  {status.phase}: {status.message}  ({ranks})"
