"""A contract for import-linter that lists what may be imported, where its own kinds list what may not.

The standard library may be imported everywhere. An entry stands for a module and all below it. Imports that only a type
checker sees count as well: what a name is, one has to know to read the code.
"""

from __future__ import annotations

import sys
from typing import Any

from importlinter import Contract, ContractCheck, fields, output

__all__ = ["AllowedContract"]


class AllowedContract(Contract):
    """`source_modules`, and all below them, import nothing but themselves and `allowed_modules`."""

    type_name = "allowed"

    source_modules = fields.ListField(subfield=fields.StringField())
    allowed_modules = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        """Every import of the sources that isn't on the list."""
        sources: list[str] = list(self.source_modules)  # type: ignore[call-overload]
        allowed = (*sources, *(self.allowed_modules or ()), *sys.stdlib_module_names)  # type: ignore[misc]
        importers = {one for source in sources for one in (source, *graph.find_descendants(source))}
        illegal = sorted(
            (importer, imported)
            for importer in importers
            for imported in graph.find_modules_directly_imported_by(importer)
            if not any(imported == one or imported.startswith(f"{one}.") for one in allowed)
        )
        return ContractCheck(kept=not illegal, metadata={"illegal": illegal})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line for each import."""
        for importer, imported in check.metadata["illegal"]:
            output.print_error(f"- {importer} may not import {imported}", bold=False)
