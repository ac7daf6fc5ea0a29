"""From a model to the structural schema that the API server asks for.

Pydantic speaks JSON Schema 2020-12 with references; a CustomResourceDefinition wants OpenAPI 3.0, everything inline,
one type a node, no null. What the two can't both say (CEL rules, keys of a list) the models carry as
`json_schema_extra` and goes through untouched.
"""

from __future__ import annotations

from typing import Any

from joulepath_crds.contract import Contract

__all__ = ["structural"]

Schema = dict[str, Any]


def structural(model: type[Contract], *, defaults: bool = True) -> Schema:
    """The structural schema (OpenAPI 3.0) of a model, as it stands under `openAPIV3Schema`.

    Without `defaults`, they are told in words only, and the API server adds nothing to what is written.
    """
    document = model.model_json_schema(by_alias=True)
    schema = _node(document, document.get("$defs", {}))
    return schema if defaults else _without_defaults(schema)


def _node(source: Schema, definitions: dict[str, Schema]) -> Schema:
    node = {key: value for key, value in source.items() if key not in ("title", "$defs")}
    if options := node.pop("anyOf", None):
        (option,) = [option for option in options if option.get("type") != "null"]
        node = {**option, **node}
    if reference := node.pop("$ref", None):
        # What is said of the field goes before what is said of its type.
        node = {**definitions[reference.rpartition("/")[2]], **node}
        return _node(node, definitions)
    if isinstance(node.get("default"), dict):
        node["default"] = {key: value for key, value in node["default"].items() if value is not None}
    if node.get("default") in (None, "", [], (), {}):
        node.pop("default", None)
    if "description" in node:
        node["description"] = " ".join(node["description"].split()) + _default_in_words(node)
    integer = node.get("type") == "integer"
    if integer:
        node["format"] = "int64"
    if (above := node.pop("exclusiveMinimum", None)) is not None:
        node |= {"minimum": above + 1} if integer else {"minimum": above, "exclusiveMinimum": True}
    if "items" in node:
        node["items"] = _node(node["items"], definitions)
    if "properties" in node:
        node["properties"] = {name: _node(field, definitions) for name, field in node["properties"].items()}
    return {key: node[key] for key in sorted(node, key=_rank)}


def _without_defaults(node: Schema) -> Schema:
    bare = {key: value for key, value in node.items() if key != "default"}
    if "items" in bare:
        bare["items"] = _without_defaults(bare["items"])
    if "properties" in bare:
        bare["properties"] = {name: _without_defaults(field) for name, field in bare["properties"].items()}
    return bare


def _default_in_words(node: Schema) -> str:
    """`kubectl explain` tells no defaults."""
    match node.get("default"):
        case bool(value):
            return f" Default: {str(value).lower()}."
        case (int() | float()) as value:
            return f" Default: {value:g}."
        case str(value):
            return f" Default: {value}."
    return ""


def _rank(key: str) -> tuple[bool, bool, str]:
    """What a reader wants first: what it is, then its bounds, then what is inside."""
    return key in ("properties", "items"), key not in ("description", "type"), key
