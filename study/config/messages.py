"""Translate pydantic errors into messages: location in the study file, allowed values, suggestion."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from study.config.introspection import (
    Location,
    is_model,
    keys_at,
    members_of,
    model_of_tag,
    names_of_weights_at,
    nested_key,
    tags_at,
    types_at,
)
from study.errors import unknown

_ALLOWED = {
    "string_type": "text, in quotes where it looks like a number",
    "path_type": "a path",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "a mapping of keys to values", "model_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values", "model_attributes_type": "a mapping of keys to values",
    "invalid_key": "text as keys",
    "too_short": "at least one entry",
    "string_pattern_mismatch": "a name of letters, digits, - and _, at most 64, the first a letter or digit",
}  # fmt: skip
_ABBREVIATIONS = {
    "bce": "binary_cross_entropy", "bce_with_logits": "binary_cross_entropy", "ce": "cross_entropy", "iou": "jaccard",
    "mae": "l1", "l2": "mse",
}  # fmt: skip
"""Other common names of losses."""
_TYPE_NAMES: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One error in a document. `kind` is pydantic's error type."""

    path: Location
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class _LocatedError:
    """A pydantic error with its path in the document and the union members under which it was raised.

    `location` is the path in the schema: it also has the names of these members.
    """

    detail: ErrorDetails
    path: Location
    location: Location
    branches: tuple[tuple[Location, str | int], ...]


def faults(error: ValidationError, document: object, *, at: Location = ()) -> list[Fault]:
    """Return the faults of a part of a study file, at most one for each path.

    Args:
        error: the validation error of this part.
        document: this part, as it was read.
        at: where this part is located in the study file.
    """
    errors = [_locate(detail, document, at) for detail in error.errors(include_url=False)]
    for union_path in dict.fromkeys(branch[0] for located in errors for branch in located.branches):
        errors = _keep_best_member(errors, union_path)
    by_path: dict[Location, Fault] = {}
    for located in errors:
        detail, path = located.detail, located.path
        message = _union_message(errors, path, document, at) or _message(detail, located.location, path)
        kind = "missing" if detail["type"] == "union_tag_not_found" else detail["type"]
        by_path.setdefault(path, Fault(path=path, kind=kind, message=message))
    return [fault for fault in by_path.values() if not _follows_from_entries(fault, by_path)]


def _follows_from_entries(fault: Fault, paths: Iterable[Location]) -> bool:
    """Return whether a list is too short only because its entries are invalid."""
    depth = len(fault.path)
    return fault.kind == "too_short" and any(len(path) > depth and path[:depth] == fault.path for path in paths)


def truth_values(document: object, settings: object, at: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield path and message of each boolean that pydantic converted to the number 1 or 0."""
    if isinstance(document, bool):
        if isinstance(settings, int | float) and not isinstance(settings, bool):
            yield at, f"is {short(document)}; allowed: a number; write {int(document)} if that is meant"
    elif isinstance(document, Mapping):
        fields = type(settings).model_fields if isinstance(settings, BaseModel) else {}
        values = {field.alias or name: getattr(settings, name) for name, field in fields.items()}
        values = dict(settings) if isinstance(settings, Mapping) else values
        for key in document.keys() & values.keys():
            yield from truth_values(document[key], values[key], (*at, key))
    elif isinstance(document, list | tuple) and isinstance(settings, list | tuple):
        for position, pair in enumerate(zip(document, settings, strict=False)):
            yield from truth_values(*pair, (*at, position))


def dotted(path: Location) -> str:
    """Return a path in the notation of the study file, such as stages.segment.loss[0]."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def short(value: object) -> str:
    """Return a value as YAML, truncated to 60 characters."""
    if value is None:
        return "empty"
    text = yaml.safe_dump(_truncate(value), default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _truncate(value: object, depth: int = 4) -> object:
    """Truncate a value before it is formatted: dumping all of a large one is slow."""
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        return "..."
    if isinstance(value, Mapping):
        return {key: _truncate(value[key], depth - 1) for key in itertools.islice(value, 60)}
    if isinstance(value, (list, tuple)):
        return [_truncate(item, depth - 1) for item in value[:60]]
    return value[:100] if isinstance(value, str) else value


def _locate(detail: ErrorDetails, document: object, at: Location) -> _LocatedError:
    path, location, value, branches = list(at), list(at), document, list[tuple[Location, str | int]]()
    for position, step in enumerate(detail["loc"], start=1):
        model = model_of_tag(tuple(path), step) if tuple(path) not in dict(branches) else None
        location.append(step if model is None else model)
        if model is not None:  # a stage may have a key of the name of its task
            branches.append((tuple(path), step))
            continue
        child = _child(value, step)
        last = position == len(detail["loc"])
        if child is not _MISSING or (last and detail["type"] == "missing"):
            value = child
            path.append(step)
        elif step != "[key]":
            branches.append((tuple(path), step))
    if detail["type"].startswith("union_tag"):
        path.append(str(detail.get("ctx", {})["discriminator"]).strip("'"))
    return _LocatedError(detail=detail, path=tuple(path), location=tuple(location), branches=tuple(branches))


def _child(value: Any, step: str | int) -> Any:  # noqa: ANN401 - raw document
    if isinstance(value, Mapping):
        return value.get(step, _MISSING)
    inside = isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int) and step < len(value)
    return value[step] if inside else _MISSING


_MISSING = object()


def _keep_best_member(errors: list[_LocatedError], union_path: Location) -> list[_LocatedError]:
    """Keep only the errors of the union member that the mapping matches best, if there is a single best one."""
    by_member: dict[str | int, list[_LocatedError]] = {}
    for error in errors:
        for path, member in error.branches:
            if path == union_path:
                by_member.setdefault(member, []).append(error)
    if len(by_member) < 2:
        return errors
    mismatches = {member: sum(_mismatch(error, union_path) for error in group) for member, group in by_member.items()}
    best = min(mismatches.values())
    if list(mismatches.values()).count(best) > 1 or best >= _OTHER_TYPE:
        return errors
    kept = [error for member, group in by_member.items() if mismatches[member] == best for error in group]
    in_members = [error for group in by_member.values() for error in group]  # unions of unions: an error has several
    return [error for error in errors if error in kept or error not in in_members]


_OTHER_TYPE = 100
"""Mismatch of a value whose type is not the member's at all."""


def _mismatch(error: _LocatedError, union_path: Location) -> int:
    if error.path == union_path and error.detail["type"] != "value_error":
        return _OTHER_TYPE
    return int(error.detail["type"] in ("extra_forbidden", "missing"))


def _union_message(errors: list[_LocatedError], path: Location, document: object, at: Location) -> str | None:
    """Return one message for the errors of several union members at a path; None if there are fewer than two."""
    members: dict[str | int, _LocatedError] = {}
    for error in errors:
        for union_path, member in error.branches:
            if union_path == path:
                members.setdefault(member, error)
    if len(members) < 2:
        return None
    value: Any = document
    for step in path[len(at) :]:
        value = value[step]
    allowed = dict.fromkeys(_describe_member(error, member, path) for member, error in members.items())
    return f"is {short(value)}; allowed: {' or '.join(allowed)}"


def _describe_member(error: _LocatedError, member: str | int, path: Location) -> str:
    for kind in types_at(path):
        for model in members_of(kind):
            if is_model(model) and model.__name__ == member:
                fields = {field.alias or name: field.is_required() for name, field in model.model_fields.items()}
                return f"a mapping with {' and '.join([name for name in fields if fields[name]] or fields)}"
    return _expected(error.detail)


def _message(detail: ErrorDetails, location: Location, path: Location) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            nested = nested_key(location[:-1], location[-1])
            return unknown("key", location[-1], keys_at(location[:-1]), meant=nested)
        case "missing" | "union_tag_not_found":
            return f"is missing; allowed: {_describe_location(path)}; add it"
        case "literal_error" if location[-1] == "[key]":
            allowed = _split_names(str(context["expected"]))
            return unknown(str(location[-3]), detail["input"], allowed, meant=_ABBREVIATIONS.get(detail["input"]))
        case "union_tag_invalid":
            return unknown(
                str(path[-1]), short(detail["input"].get(path[-1])), _split_names(str(context["expected_tags"]))
            )
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case _:
            return f"is {short(detail['input'])}; allowed: {_expected(detail)}{_remedy(detail, path)}"


def _remedy(detail: ErrorDetails, path: Location) -> str:
    """Return what to write instead; empty if the intention is not clear."""
    value = detail["input"]
    if isinstance(value, str) and detail["type"] in ("mapping_type", "dict_type"):
        name = _ABBREVIATIONS.get(value, value)
        return f"; write {{{name}: 1.0}}" if name in names_of_weights_at(path) else ""
    if path[:2] == ("compare", "labelled_fraction") and detail["type"] == "less_than_equal":
        return "; for numbers of images write labelled_images"
    return ""


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "too_long":
        return f"at most {detail['ctx']['max_length']:,} entries"
    return _ALLOWED.get(detail["type"]) or detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _split_names(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").replace("'", "").split(", ")


def _describe_location(location: Location) -> str:
    """Return which kind of value a location allows."""
    tags = tags_at(location)
    if tags:
        return ", ".join(tags)
    for kind in types_at(location):
        for member in members_of(kind):
            if get_origin(member) in (tuple, list):
                return _ALLOWED["tuple_type"]
            if is_model(member) or get_origin(member) is not None:
                return _ALLOWED["dict_type"]
            return _TYPE_NAMES.get(member, "a value")
    return "a value"
