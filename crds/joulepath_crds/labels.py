"""Kinds and labels of instructions, as fields of objects."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from joulepath_rules import INSTRUCTION_KINDS, PAIR_KIND

__all__ = ["InstructionKind", "InstructionLabel"]

InstructionKind = Annotated[str, Field(pattern=f"^([{INSTRUCTION_KINDS}]|{PAIR_KIND})$")]
InstructionLabel = Annotated[str, Field(max_length=32)]
"""`F0`, or `3:F0` where the stage isn't told beside it; `3:F4&7:B1` for a pair."""
