"""The same habits in every room: explicit exports, `Final`, one way to write a docstring, small levels.

What ruff and import-linter can't ask for. The walls between the rooms are import-linter's (pyproject.toml).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ROOTS: Final = ("operator", "agent", "crds", "lab")
OURS: Final = {path.stem for root in ROOTS for path in (ROOT / root).iterdir()}
MODULES: Final = sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))
PRODUCT: Final = [path for path in MODULES if path.relative_to(ROOT).parts[0] != "lab"]
MOST_MODULES: Final = 12
"""On one level, a package's own `__init__` and `__main__` apart."""
CONSTANT: Final = re.compile(r"_?[A-Z][A-Z0-9_]+")
ERRORS_INLINE: Final = re.compile(r"\b[Rr]aises? `?[\w.]+(Error|Exception)\b")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_module_says_what_it_is_and_what_it_exports() -> None:
    told = {}
    for path in MODULES:
        tree = _parsed(path)
        exports, defined = _exports(tree), {name for node in tree.body for name in _defines(node)}
        if path.name == "__init__.py":
            defined |= {module.stem for module in path.parent.iterdir()}
        if not ast.get_docstring(tree):
            told[_name(path)] = "it doesn't begin with what it is"
        elif exports is None and path.name != "__main__.py":
            told[_name(path)] = "it has no __all__"
        elif missing := (exports or set()) - defined:
            told[_name(path)] = f"__all__ has {missing}, which it doesn't"
    assert not told


def test_constants_are_final() -> None:
    loose = [
        f"{_name(path)}: {name}"
        for path in MODULES
        if path.parent.name != "bootstrap"  # read by Pythons that know no `Final`
        for node in _parsed(path).body
        for name in _assigned(node)
        if CONSTANT.fullmatch(name) and not _is_final(node)
    ]
    assert not loose


def test_docstrings_are_written_alike() -> None:
    odd = [
        f"{_name(path)}: {text}"
        for path in MODULES
        for text in _texts(_parsed(path))
        if "``" in text or ERRORS_INLINE.search(text)
    ]
    assert not odd, "code stands in single backticks, errors in a section Raises:"


def test_nothing_private_is_imported() -> None:
    private = [
        f"{_name(path)}: {node.module}.{alias.name}"
        for path in MODULES
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not private


def test_a_level_of_the_product_has_a_dozen_modules_at_most() -> None:
    levels = Counter(_name(path.parent) for path in PRODUCT if path.name not in ("__init__.py", "__main__.py"))
    assert {level: count for level, count in levels.items() if count > MOST_MODULES} == {}


def test_a_wing_lists_its_modules() -> None:
    missing = [
        f"{_name(path.parent)}: {module.stem}"
        for path in PRODUCT
        if path.name == "__init__.py" and (path.parents[1] / "__init__.py").exists()
        for module in path.parent.glob("*.py")
        if module != path and f"`{module.stem}`" not in (ast.get_docstring(_parsed(path)) or "")
    ]
    assert not missing


def test_the_architecture_names_every_module() -> None:
    house = (ROOT / "docs/architecture.md").read_text().partition("## The house")[2].partition("\n## ")[0]
    named = set(re.findall(r"\w+", house))
    stems = {path.stem for path in PRODUCT} - {"__init__", "__main__"}
    assert not stems - named


def _texts(tree: ast.Module) -> Iterator[str]:
    """Docstrings of the module and of its classes, functions, constants and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def _exports(tree: ast.Module) -> set[str] | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return set(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return set(ast.literal_eval(value))
    return None


def _defines(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name for alias in names)
        case ast.Try(body=body) | ast.If(body=body):
            for inner in body:
                yield from _defines(inner)


def _assigned(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Assign(targets=targets):
            names = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
            yield from (one.id for one in names if isinstance(one, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _is_final(node: ast.stmt) -> bool:
    """Whether it says so, or names a type: `K = TypeVar(...)`, `UID = Annotated[...]`."""
    match node:
        case ast.AnnAssign(annotation=annotation):
            return ast.unparse(annotation).strip("'").split("[")[0] in ("Final", "TypeAlias")
        case ast.Assign(value=ast.Call(func=ast.Name(id=made))):
            return made in ("TypeVar", "ParamSpec", "NewType")
        case ast.Assign(value=ast.Subscript(value=ast.Name(id=of))):
            return of in ("Annotated", "Callable", "Literal", "dict", "list", "tuple")
    return False
