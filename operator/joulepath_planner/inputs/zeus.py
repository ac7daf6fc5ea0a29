"""Zeus's CSV: one row for each stage, instruction and clock (github.com/ml-energy/zeus, `pipeline_frequency`).

Two dialects of it are read too. Merak's profiler has rows of a third instruction, `load`, which is no computation and
which no schedule runs: left out. Kareus has several rows for a clock, told apart by further columns (ways to run the
kernels): of each clock the row of least effective energy is kept. Both are told to the caller.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from math import inf
from os import PathLike
from typing import Final, NamedTuple

from joulepath_planner.arguments import quoted
from joulepath_planner.errors import ProfileError
from joulepath_planner.inputs.instruction import KIND_NAMES, KINDS
from joulepath_planner.inputs.text import read_text

__all__ = ["Row", "read_rows"]

_KINDS: Final = {**{name: kind for kind, name in KIND_NAMES.items()}, **{kind.lower(): kind for kind in KINDS}}
_COLUMNS: Final = ("stage", "instruction", "frequency", "time", "energy")
_WHOLE: Final = ("stage", "frequency")
_WANTED: Final = {
    "stage": "a whole number",
    "frequency": "a whole number of MHz",
    "time": "a number of seconds above 0, with a point before its decimals",
    "energy": "a number of joules above 0, with a point before its decimals",
}
_LOAD: Final = "load"


class Row(NamedTuple):
    """One GPU, one instruction of one stage at one clock. rest: what its further columns say."""

    stage: int
    kind: str
    clock_mhz: int
    time_s: float
    energy_j: float
    rest: tuple[str, ...]


def read_rows(
    path: str | PathLike[str], wait_power_w: Callable[[int], float], tell: Callable[[str], object]
) -> list[Row]:
    """The rows to plan on, in the order of the file.

    wait_power_w: watts of a waiting GPU by clock, for the effective energy. tell: called with a sentence on what is
        left out.

    Raises:
        ProfileError: It is no such CSV.
        OSError: The file can't be read.
    """
    reader = csv.reader(StringIO(read_text(path, ProfileError), newline=""), skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, ())]
        _check_header(path, header)
        further = tuple(name for name in header if name not in _COLUMNS)
        found, loads, lines = [], 0, dict[object, int]()
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(map(str.strip, cells)):
                continue
            if len(cells) > len(header):
                raise ProfileError(
                    f"{where} has {len(cells)} fields, and the header {len(header)}; write decimals with a point, and "
                    "a comma between columns only."
                )
            row = dict(zip(header, cells, strict=False))
            if row.get("instruction", "").strip().lower() == _LOAD:
                loads += 1
            else:
                found.append(one := _row(where, row, further))
                if (first := lines.setdefault((one[:3], one.rest), reader.line_num)) != reader.line_num:
                    raise ProfileError(
                        f"{where}: stage {one.stage} {one.kind} at {one.clock_mhz} MHz is given twice, first in line "
                        f"{first}; keep one row per clock."
                    )
    except csv.Error as error:
        raise ProfileError(f"{path} is no CSV ({error}); export it as text with commas between columns.") from None
    if loads:
        tell(
            f"{path}: {loads} rows of the instruction {_LOAD!r} are left out, as no schedule runs it; to count its "
            "time, call it 'fixed' and give an order of the ranks that has X in it."
        )
    return _best(path, found, further, wait_power_w, tell)


def _check_header(path: str | PathLike[str], header: Sequence[str]) -> None:
    wanted = ",".join(_COLUMNS)
    if not header:
        raise ProfileError(f"{path} is empty; its header must be {wanted}.")
    if missing := [name for name in _COLUMNS if name not in header]:
        raise ProfileError(
            f"{path}: column {missing[0]!r} is missing; the header must be {wanted}, separated by commas."
        )
    if twice := [name for name in _COLUMNS if header.count(name) > 1]:
        raise ProfileError(f"{path}: column {twice[0]!r} is there twice; keep the one to plan with.")


def _row(where: str, row: dict[str, str], further: Iterable[str]) -> Row:
    name = row.get("instruction", "")
    kind = _KINDS.get(name.strip().lower())
    if kind is None:
        raise ProfileError(f"{where}: instruction {quoted(name)} is unknown; use one of {', '.join(_KINDS)}.")
    stage, clock, time_s, energy_j = (_number(row.get(one), one, where) for one in ("stage", *_COLUMNS[2:]))
    return Row(int(stage), kind, int(clock), time_s, energy_j, tuple(row.get(one, "").strip() for one in further))


def _number(text: str | None, column: str, where: str) -> float:
    try:
        value = float(text or "")
        if "_" in (text or "") or (column in _WHOLE and not value.is_integer()):
            raise ValueError
        if column not in _WHOLE and not 0 < value < inf:
            raise ValueError
        return value
    except ValueError:
        given = "missing" if text is None else quoted(text)
        raise ProfileError(f"{where}: {column} is {given}; it must be {_WANTED[column]}.") from None


def _best(
    path: str | PathLike[str],
    rows: Sequence[Row],
    further: Sequence[str],
    wait_power_w: Callable[[int], float],
    tell: Callable[[str], object],
) -> list[Row]:
    """Of each clock the row of least effective energy, where further columns tell several rows of it apart."""
    ways = Counter(row[:3] for row in rows)
    if len(ways) == len(rows):
        return list(rows)
    cheapest: dict[tuple[int, str, int], Row] = {}
    for row in sorted(rows, key=lambda row: row.energy_j - wait_power_w(row.clock_mhz) * row.time_s):
        cheapest.setdefault(row[:3], row)
    several = [row for row in rows if ways[row[:3]] > 1]
    telling = [name for name, *cells in zip(further, *(row.rest for row in several), strict=True) if len({*cells}) > 1]
    tell(
        f"{path} has several rows for a clock, told apart by {', '.join(telling)}: {len(rows) - len(cheapest)} are "
        "left out, and of each stage, instruction and clock the one of least effective energy is kept; to plan with "
        "others, leave only those in."
    )
    return [row for row in rows if cheapest[row[:3]] is row]
