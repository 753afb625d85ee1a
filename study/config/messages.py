"""What pydantic found wrong, in the words of the study file: where it stands, what is allowed, what was meant."""

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
    names_of_weights_at,
    nested_key,
    tags_at,
    types_at,
)
from study.errors import unknown

_KINDS = {
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
"""What the field also calls losses."""
_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong. `kind` is pydantic's name of it."""

    path: Location
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class _Found:
    """An error with its place in the document and the members of unions it was found in."""

    detail: ErrorDetails
    path: Location
    branches: tuple[tuple[Location, str | int], ...]


def faults(error: ValidationError, document: object, *, at: Location = ()) -> list[Fault]:
    """Return what is wrong with the part of a study file that stands at `at`, each place once."""
    found = [_located(detail, document, at) for detail in error.errors(include_url=False)]
    for place in dict.fromkeys(branch[0] for one in found for branch in one.branches):
        found = _fitting(found, place)
    told: dict[Location, Fault] = {}
    for one in found:
        message = _several(found, one.path, document, at) or _message(one.detail, (*at, *one.detail["loc"]), one.path)
        kind = "missing" if one.detail["type"] == "union_tag_not_found" else one.detail["type"]
        told.setdefault(one.path, Fault(path=one.path, kind=kind, message=message))
    return [fault for fault in told.values() if not _emptied(fault, told)]


def _emptied(fault: Fault, paths: Iterable[Location]) -> bool:
    """Return whether a list is too short only because its entries are wrong."""
    depth = len(fault.path)
    return fault.kind == "too_short" and any(len(path) > depth and path[:depth] == fault.path for path in paths)


def truth_values(document: object, settings: object, at: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield place and message for each `true` or `false` that was read as a number: pydantic takes them for 1 and 0."""
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
    """Return a path as a user writes it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def short(value: object) -> str:
    """Return a value as the file spells it, cut where it is long."""
    if value is None:
        return "empty"
    text = yaml.safe_dump(_beginning(value), default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _beginning(value: object, depth: int = 4) -> object:
    """Return at least as much of a value as is shown: writing all of a large one takes long."""
    if isinstance(value, (Mapping, list, tuple)) and not depth:
        return "..."
    if isinstance(value, Mapping):
        return {key: _beginning(value[key], depth - 1) for key in itertools.islice(value, 60)}
    if isinstance(value, (list, tuple)):
        return [_beginning(item, depth - 1) for item in value[:60]]
    return value[:100] if isinstance(value, str) else value


def _located(detail: ErrorDetails, document: object, at: Location) -> _Found:
    path, here, branches = list(at), document, list[tuple[Location, str | int]]()
    for position, step in enumerate(detail["loc"], start=1):
        held = _held(here, step)
        last = position == len(detail["loc"])
        if held is not _NOTHING or (last and detail["type"] == "missing"):
            here = held
            path.append(step)
        elif step != "[key]":
            branches.append((tuple(path), step))
    if detail["type"].startswith("union_tag"):
        path.append(str(detail.get("ctx", {})["discriminator"]).strip("'"))
    return _Found(detail=detail, path=tuple(path), branches=tuple(branches))


def _held(value: Any, step: str | int) -> Any:  # noqa: ANN401 - raw document
    if isinstance(value, Mapping):
        return value.get(step, _NOTHING)
    inside = isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int) and step < len(value)
    return value[step] if inside else _NOTHING


_NOTHING = object()


def _fitting(found: list[_Found], place: Location) -> list[_Found]:
    """Where a mapping fits several members of a union badly, keep the member it was most likely meant to be."""
    by_member: dict[str | int, list[_Found]] = {}
    for one in found:
        for where, member in one.branches:
            if where == place:
                by_member.setdefault(member, []).append(one)
    if len(by_member) < 2:
        return found
    misfits = {member: sum(_misfit(one, place) for one in ones) for member, ones in by_member.items()}
    best = min(misfits.values())
    if list(misfits.values()).count(best) > 1 or best >= _OTHER_SHAPE:
        return found
    lost = [one for member, ones in by_member.items() if misfits[member] > best for one in ones]
    return [one for one in found if one not in lost]


_OTHER_SHAPE = 100


def _misfit(one: _Found, place: Location) -> int:
    if one.path == place and one.detail["type"] != "value_error":
        return _OTHER_SHAPE
    return int(one.detail["type"] in ("extra_forbidden", "missing"))


def _several(found: list[_Found], path: Location, document: object, at: Location) -> str | None:
    """Return one message where several members of a union stand at this path; None where one does."""
    members: dict[str | int, _Found] = {}
    for one in found:
        for where, member in one.branches:
            if where == path:
                members.setdefault(member, one)
    if len(members) < 2:
        return None
    value: Any = document
    for step in path[len(at) :]:
        value = value[step]
    wanted = [_member(one, member, path) for member, one in members.items()]
    return f"is {short(value)}; allowed: {' or '.join(wanted)}"


def _member(one: _Found, member: str | int, path: Location) -> str:
    for kind in types_at(path):
        for model in members_of(kind):
            if is_model(model) and model.__name__ == member:
                fields = {field.alias or name: field.is_required() for name, field in model.model_fields.items()}
                return f"a mapping with {' and '.join([name for name in fields if fields[name]] or fields)}"
    return _wanted(one.detail)


def _message(detail: ErrorDetails, location: Location, path: Location) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            nested = nested_key(location[:-1], location[-1])
            return unknown("key", location[-1], keys_at(location[:-1]), meant=nested)
        case "missing" | "union_tag_not_found":
            return f"is missing; allowed: {_described(path)}; add it"
        case "literal_error" if location[-1] == "[key]":
            allowed = _words(str(context["expected"]))
            return unknown(str(location[-3]), detail["input"], allowed, meant=_ABBREVIATIONS.get(detail["input"]))
        case "union_tag_invalid":
            return unknown(str(path[-1]), short(detail["input"].get(path[-1])), _words(str(context["expected_tags"])))
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case _:
            return f"is {short(detail['input'])}; allowed: {_wanted(detail)}{_remedy(detail, path)}"


def _remedy(detail: ErrorDetails, path: Location) -> str:
    """Return what to write instead, where it is clear what was meant."""
    value = detail["input"]
    if isinstance(value, str) and detail["type"] in ("mapping_type", "dict_type"):
        name = _ABBREVIATIONS.get(value, value)
        return f"; write {{{name}: 1.0}}" if name in names_of_weights_at(path) else ""
    if path[:2] == ("compare", "labelled_fraction") and detail["type"] == "less_than_equal":
        return "; for numbers of images write labelled_images"
    return ""


def _wanted(detail: ErrorDetails) -> str:
    if detail["type"] == "too_long":
        return f"at most {detail['ctx']['max_length']:,} entries"
    return _KINDS.get(detail["type"]) or detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").replace("'", "").split(", ")


def _described(location: Location) -> str:
    """Return what kind of value stands at a place."""
    tags = tags_at(location)
    if tags:
        return ", ".join(tags)
    for kind in types_at(location):
        for member in members_of(kind):
            if get_origin(member) in (tuple, list):
                return _KINDS["tuple_type"]
            if is_model(member) or get_origin(member) is not None:
                return _KINDS["dict_type"]
            return _WORDS.get(member, "a value")
    return "a value"
