"""From a raw document to a `StudySpec`, with every problem found on the way."""

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from study.config.document import Document
from study.config.introspection import Location
from study.config.messages import Fault, dotted, faults, truth_values
from study.config.schema import StudySpec
from study.errors import Problem

_ROUNDS = 20  # each round removes what was wrong; nesting is far shallower than this
_STAND_INS: Mapping[Location, Any] = {
    ("name",): "study",
    ("compare",): {"architecture": ["unet"], "backbone": ["resnet18"]},
    ("compare", "architecture"): ["unet"],
    ("compare", "backbone"): ["resnet18"],
}
"""Values for what every study must say, so that the rest can be checked without it."""


def parse(document: Document) -> tuple[StudySpec | None, list[Problem]]:
    """Return the spec and what is wrong with the document.

    What does not validate is taken out, so that the rest can still be checked; with any problem the
    spec serves for finding further ones only. None where nothing sensible is left.
    """
    rest, removed, problems = copy.deepcopy(document), set[Location](), list[Problem]()
    for _ in range(_ROUNDS):
        try:
            spec = StudySpec.model_validate(rest)
            problems += [Problem(path=dotted(path), message=message) for path, message in truth_values(rest, spec)]
            return spec, problems
        except ValidationError as error:
            found = faults(error, rest)
        problems += [
            Problem(path=dotted(fault.path), message=fault.message) for fault in found if not _follows(fault, removed)
        ]
        gone = {_prune(rest, path) for path in sorted({fault.path for fault in found}, key=len, reverse=True)}
        if None in gone:
            break
        removed |= {path for path in gone if path is not None}
    return None, problems


def _follows(fault: Fault, removed: set[Location]) -> bool:
    """Return whether a fault is only there because an earlier one was taken out."""
    if fault.kind == "missing":
        return fault.path in removed
    return fault.kind == "value_error" and any(
        path[:-1] == fault.path and str(path[-1]) in fault.message for path in removed
    )


def _prune(document: Document, path: Location) -> Location | None:
    """Take out what is wrong and return its path; for a missing key, what misses it. None where nothing is left.

    Lists go as a whole, and so do pathways: what is left of one would be another one.
    """
    whole = next((position for position, step in enumerate(path) if isinstance(step, int)), len(path))
    path = path[: 2 if path[:1] == ("pathways",) else whole]
    if not path:
        return None
    parent: Any = document
    for step in path[:-1]:
        parent = parent.get(step) if isinstance(parent, dict) else None
    if not isinstance(parent, dict):
        return path  # taken out along with something around it
    if path in _STAND_INS:
        parent[path[-1]] = copy.deepcopy(_STAND_INS[path])
        return path
    missing = parent.pop(path[-1], _NOTHING) is _NOTHING
    return _prune(document, path[:-1]) if missing or not parent else path


_NOTHING = object()
