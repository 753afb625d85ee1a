"""Parse a raw document into a `StudySpec` and collect all problems."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from study.config.document import Document
from study.config.introspection import Location
from study.config.messages import Fault, dotted, faults, truth_values
from study.config.schema import StudySpec
from study.errors import Problem

_ROUNDS = 20  # each round removes the invalid values; nesting is far shallower than this
_PLACEHOLDERS: Mapping[Location, Any] = {
    ("name",): "study",
    ("compare",): {"architecture": ["unet"], "backbone": ["resnet18"]},
    ("compare", "architecture"): ["unet"],
    ("compare", "backbone"): ["resnet18"],
}
"""Valid values of required keys, so that the rest can be checked if one of them is invalid."""


def parse(document: Document) -> tuple[StudySpec | None, list[Problem]]:
    """Return the spec and all problems of a document.

    Invalid values are removed, so that the rest can still be checked. If there are problems, the spec is only good
    for finding more of them. It is None if the rest cannot be parsed.
    """
    rest, removed, problems = copy.deepcopy(document), set[Location](), list[Problem]()
    for _ in range(_ROUNDS):
        try:
            spec = StudySpec.model_validate(rest)
            problems += [Problem(path=dotted(path), message=message) for path, message in truth_values(rest, spec)]
            return spec, problems
        except ValidationError as error:
            invalid = faults(error, rest)
        problems += [
            Problem(path=dotted(fault.path), message=fault.message) for fault in invalid if not _follows(fault, removed)
        ]
        pruned = {_prune(rest, path) for path in sorted({fault.path for fault in invalid}, key=len, reverse=True)}
        if None in pruned:
            break
        removed |= {path for path in pruned if path is not None}
    return None, problems


def _follows(fault: Fault, removed: set[Location]) -> bool:
    """Return whether a fault is only caused by the removal of an earlier one."""
    if fault.kind == "missing":
        return fault.path in removed
    return fault.kind == "value_error" and any(
        path[:-1] == fault.path and str(path[-1]) in fault.message for path in removed
    )


def _prune(document: Document, path: Location) -> Location | None:
    """Remove an invalid value, or the mapping that lacks a required key, and return its path; None if nothing remains.

    Lists and pathways are removed completely: the rest of one would be a different list or pathway.
    """
    list_depth = next((position for position, step in enumerate(path) if isinstance(step, int)), len(path))
    path = path[: 2 if path[:1] == ("pathways",) else list_depth]
    if not path:
        return None
    parent: Any = document
    for step in path[:-1]:
        parent = parent.get(step) if isinstance(parent, dict) else None
    if not isinstance(parent, dict):
        return path  # removed together with a value that contained it
    if path in _PLACEHOLDERS:
        parent[path[-1]] = copy.deepcopy(_PLACEHOLDERS[path])
        return path
    missing = parent.pop(path[-1], _MISSING) is _MISSING
    return _prune(document, path[:-1]) if missing or not parent else path


_MISSING = object()
