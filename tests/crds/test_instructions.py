"""The label of an instruction: read in one place, and read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_crds import INSTRUCTION_KINDS, Instruction

_stages, _microbatches = st.integers(0, 2000), st.integers(0, 100_000)
_places = st.tuples(_stages, _microbatches)
instructions = st.builds(
    Instruction, _stages, st.sampled_from(INSTRUCTION_KINDS), _microbatches, st.just(0)
) | st.builds(Instruction.pair, _places, _places)


@given(instructions)
def test_what_is_written_is_read_again(one: Instruction) -> None:
    assert Instruction.parse(one.label) == one
    assert Instruction.parse(one.name, one.stage) == one
    assert Instruction.parse(one.label, one.stage) == one


@given(instructions, st.integers(0, 2000))
def test_a_label_of_another_stage_than_it_stands_with_is_refused(one: Instruction, other: int) -> None:
    if other != one.stage:
        with pytest.raises(ValueError, match=one.label):
            Instruction.parse(one.label, other)


def test_a_pair_is_a_kind_of_its_own_with_two_halves_and_markers_tell_its_forward() -> None:
    one = Instruction.parse("3:F4&7:B1")
    assert (one.stage, one.kind, one.name) == (3, "F&7:B", "F4&7:B1")
    assert [half.label for half in one.halves] == ["3:F4", "7:B1"]
    assert one.mark == (3, "P", 4, 0)


@pytest.mark.parametrize(
    "label",
    [
        *("", "F", "0", "f0", "X0", "F-1", "F1.5", "F٣", ":F0", "a:F0", "1:", "-1:F0", "1:2:F0", "F0&B1", "F0&1:B"),
        *("B0&1:B1", "F0&1:F1", "F0&1:B1&1:B2", "F0+1:B1", "1:F0&:B1", "0:F0&1:B٣"),
    ],
)
def test_what_is_no_label_is_refused_by_name(label: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' "):
        Instruction.parse(label, 0 if ":" not in label else None)


def test_a_label_without_a_stage_needs_one_beside_it() -> None:
    with pytest.raises(ValueError, match="'F0' names no stage"):
        Instruction.parse("F0")
