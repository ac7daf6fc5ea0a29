"""The YAML says what the models say, in a form that every API server takes and every reader understands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulepath_crds.__main__ import FOLDERS, documents, main
from joulepath_crds.definitions import KINDS, definition

KNOWN = {
    "type",
    "format",
    "description",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "properties",
    "items",
    "additionalProperties",
    "maxProperties",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
}
WORDS = {"Seconds": r"[Ss]econd", "Joules": r"[Jj]oule", "Watts": r"[Ww]att", "MHz": r"MHz", "Percent": r"percent"}


def _nodes(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from _nodes(f"{path}.{name}", field)
    if "items" in node:
        yield from _nodes(f"{path}[]", node["items"])


def _schema(kind: str) -> dict[str, Any]:
    (found,) = [definition(one) for one in KINDS if one.name == kind]
    schema: dict[str, Any] = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


FIELDS = [field for kind in KINDS for field in _nodes(kind.name, _schema(kind.name))]


def test_files_are_what_the_models_say() -> None:
    assert main(["--check"]) == 0


def test_check_names_the_file_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("joulepath_crds.__main__.FOLDERS", (tmp_path,))
    monkeypatch.setattr("joulepath_crds.__main__.ROOT", tmp_path)
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "jobplans.yaml").write_text("stale")
    assert main(["--check"]) == 1
    assert "jobplans.yaml differs from the models: run python -m joulepath_crds" in capsys.readouterr().err


def test_every_folder_holds_only_the_definitions() -> None:
    for folder in FOLDERS:
        assert {path.name for path in folder.glob("*.yaml")} == set(documents())


def _faults(path: str, node: dict[str, Any]) -> Iterator[str]:
    if not isinstance(node.get("type"), str) or not set(node) <= KNOWN:
        yield "not structural"
    if not path.endswith("[]") and not node.get("description"):
        yield "no description"
    named = path.endswith((".apiVersion", ".kind"))
    if node["type"] == "string" and not named and not {"maxLength", "enum", "pattern", "format"} & set(node):
        yield "no length"
    if node["type"] == "array" and "maxItems" not in node:
        yield "no maxItems"
    for key in node.get("x-kubernetes-list-map-keys", ()):
        if key not in node["items"]["required"] and "default" not in node["items"]["properties"][key]:
            yield f"the key {key} may be missing"
    if missing := set(node.get("required", ())) - set(node.get("properties", ())):
        yield f"requires {missing}, which it doesn't have"
    for unit, words in WORDS.items():
        if path.endswith(unit) and not re.search(words, node["description"]):
            yield f"doesn't tell its unit: {node['description']}"


def test_no_default_holds_a_null() -> None:
    for path, field in FIELDS:
        assert "null" not in yaml.safe_dump(field.get("default", 0)), f"{path}: the API server refuses it"


def test_fields_are_structural_described_and_bounded_and_tell_their_units() -> None:
    checked = [(path, node) for path, node in FIELDS if not path.endswith(".metadata")]
    assert [f"{path}: {fault}" for path, node in checked for fault in _faults(path, node)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_columns_show_fields_that_exist(kind: Any) -> None:
    paths = {re.sub(r"^\w+", "", path).replace("[]", "[*]") for path, _ in _nodes(kind.name, _schema(kind.name))}
    for column in kind.columns:
        assert column.path in paths | {".metadata.creationTimestamp"}


def test_names_are_the_ones_that_the_documentation_uses() -> None:
    assert {kind.short: (kind.plural, kind.namespaced) for kind in KINDS} == {
        "eplan": ("energyplans", True),
        "epol": ("energypolicies", False),
        "eprofile": ("energyprofiles", True),
        "jplan": ("jobplans", True),
        "nreport": ("nodereports", False),
        "nstate": ("nodestates", False),
        "nmeasure": ("nodemeasurements", False),
    }
    for kind in KINDS:
        assert definition(kind)["spec"]["names"]["categories"] == ["joulepath"]


def test_only_what_joulepath_tells_of_itself_has_a_status_of_its_own() -> None:
    with_status = {
        kind.name for kind in KINDS if definition(kind)["spec"]["versions"][0].get("subresources") == {"status": {}}
    }
    assert with_status == {"EnergyPlan", "NodeReport", "NodeState", "NodeMeasurement"}


def test_every_refusal_tells_what_to_do() -> None:
    rules = [rule for _, node in FIELDS for rule in node.get("x-kubernetes-validations", ())]
    assert len(rules) >= 8
    for rule in rules:
        assert re.search(r"\b(set|give|make|choose)\b", rule.get("message") or rule["messageExpression"])


def test_yaml_repeats_rather_than_refers() -> None:
    for name, text in documents().items():
        assert yaml.safe_load(text)["metadata"]["name"] == f"{name.removesuffix('.yaml')}.joulepath.dev"
        assert not re.search(r"(^|\s)[&*]id\d", text)
