"""Files of a study's folder and seals of stages: which form they have, and reading them if nobody altered them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.files import Altered, is_name, read_signed, verified
from study.layout import DRIVER, FAILURES, PLAN

_FILE = {"bytes": int, "mtime_ns": int, "blake2b": str}
_SEARCH = {"name": str, "study": str, "metrics": list, "trials": int}
_FAILURE = {"digest": str, "stage": str, "error": str}
_SPEC = "# blake2b: "
_DRIVER = {
    "state": str, "time": float | int, "stages": dict, "running": list, "seconds_left": float | int | None,
    "searching": bool,
}  # fmt: skip


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Return `plan.json` of a study's folder; None before it was planned. Raises `Altered`."""
    return read_signed(folder / PLAN, _is_plan)


def read_driver(folder: Path) -> dict[str, Any] | None:
    """Return `driver.json` of a study's folder; None before it ran. Raises `Altered`."""
    return read_signed(folder / DRIVER, _is_driver)


def read_failures(folder: Path) -> list[dict[str, str]]:
    """Return the failures of a study's last run, each stage once. Raises `Altered`."""
    file = folder / FAILURES
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    if not lines[-1]:  # behind the last line break
        lines.pop()
    failures = {}
    for number, line in enumerate(lines, start=1):
        failure = verified_line(line, _is_failure)
        if failure is None:
            raise Altered(str(file), f"line {number} was altered after it was written")
        failures[failure["digest"]] = failure
    return list(failures.values())


def signed_spec(text: str) -> str:
    """Return the text of `spec.yaml` with its hash in a comment before it."""
    return f"{_SPEC}{_hash_of_text(text)}\n{text}"


def check_spec(file: Path) -> None:
    """Raise `Altered` where a study file has a hash before its text that is not the text's."""
    first, _, text = file.read_text(encoding="utf-8", errors="replace").partition("\n")
    if first.startswith(_SPEC) and first.removeprefix(_SPEC) != _hash_of_text(text):
        raise Altered(str(file), "was altered after it was written")


def without_hash(text: str) -> str:
    """Return the text of `spec.yaml` as it is shown."""
    return text.partition("\n")[2] if text.startswith(_SPEC) else text


def _hash_of_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def verified_line(line: bytes, is_sound: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """Return the values of a line of JSON, None where it is not as it was written; see `study.files.verified`."""
    try:
        return verified(json.loads(line), is_sound)
    except (ValueError, RecursionError):
        return None


def is_seal(value: dict[str, Any]) -> bool:
    """Return whether values have the form of a stage's seal."""
    files = value.get("files")
    return (
        value.keys() <= {"updates", "seconds", "files"}
        and isinstance(value.get("updates"), int)
        and isinstance(value.get("seconds"), float | int)
        and isinstance(files, dict)
        and all(_has_form(mark, _FILE) for mark in files.values())
    )


def _is_plan(value: dict[str, Any]) -> bool:
    stages, searches = value.get("stages"), value.get("searches", [])
    return (
        value.keys() <= {"stages", "after_search", "searches", "journal_lines"}
        and isinstance(value.get("journal_lines", 0), int)
        and isinstance(stages, dict)
        and all(is_name(digest) and isinstance(name, str) for digest, name in stages.items())
        and isinstance(searches, list)
        and all(_has_form(search, _SEARCH) for search in searches)
    )


def _is_driver(value: dict[str, Any]) -> bool:
    running, stages = value.get("running", []), value.get("stages", {})
    return (
        value.keys() <= _DRIVER.keys()
        and all(isinstance(part, _DRIVER[name]) for name, part in value.items())
        and {"state", "time", "stages"} <= value.keys()
        and isinstance(stages.get("running"), int)
        and all(isinstance(stage, dict) for stage in running)
    )


def _is_failure(value: dict[str, Any]) -> bool:
    return _has_form(value, _FAILURE)


def _has_form(value: object, form: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == form.keys()
        and all(isinstance(value[name], kind) for name, kind in form.items())
    )
