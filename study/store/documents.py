"""Read and verify the files of a study folder and the manifests of stages."""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.store.atomic import NOT_A_FILE, AlteredFileError, Form, is_name, read_signed, verified
from study.store.paths import DRIVER, FAILURES, PLAN

_FILE = {"bytes": int, "mtime_ns": int, "blake2b": str}
_SEARCH = {"name": str, "study": str, "metrics": list, "trials": int}
_FAILURE = {"digest": str, "stage": str, "error": str}
_SPEC = "# blake2b: "
_SPEC_NAME = re.compile(r"^name: ['\"]?([\w-]+)['\"]?\s*$", re.MULTILINE)
_DRIVER = {
    "state": str, "time": float | int, "stages": dict, "running": list, "seconds_left": float | int | None,
    "searching": bool,
}  # fmt: skip


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Return `plan.json` of a study folder; None if it does not exist. Raises `AlteredFileError`."""
    return _read_of_study(folder / PLAN, _PLAN_FORM)


def read_driver(folder: Path) -> dict[str, Any] | None:
    """Return `driver.json` of a study folder; None if it does not exist. Raises `AlteredFileError`."""
    return _read_of_study(folder / DRIVER, _DRIVER_FORM)


def _read_of_study(file: Path, form: Form) -> dict[str, Any] | None:
    """Return the values of a file in a study folder. Raises `AlteredFileError`, also if it belongs to another study."""
    values = read_signed(file, form)
    if values is not None and values.get("study", file.parent.name) != file.parent.name:
        raise AlteredFileError(str(file), of_study(values["study"]))
    return values


def of_study(name: object) -> str:
    """Return the description of a file that belongs to another study."""
    return f"is of study {name} (was its folder renamed or copied?)"


def read_failures(folder: Path, driver: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """Return the failures of the last run of a study, each stage once. Raises `AlteredFileError`.

    `driver` is the result of `read_driver`: a run that has ended recorded the number of failures.
    """
    file = folder / FAILURES
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = [b""]
    except OSError as error:
        if error.errno not in NOT_A_FILE:
            raise
        raise AlteredFileError(str(file), "is not the file that was written") from error
    if not lines[-1]:  # after the last line break
        lines.pop()
    failures = {}
    for number, line in enumerate(lines, start=1):
        failure = verified_line(line, _FAILURE_FORM)
        if failure is None:
            raise AlteredFileError(str(file), f"line {number} was altered after it was written")
        failures[failure["digest"]] = failure
    expected = driver["stages"].get("failed", 0) if driver is not None and driver["state"] != "running" else 0
    if len(failures) < expected:
        raise AlteredFileError(str(file), f"is cut off: {len(failures)} failures are left of {expected}")
    return list(failures.values())


def signed_spec(text: str) -> str:
    """Return the text of `spec.yaml` preceded by a comment with its hash."""
    return f"{_SPEC}{_hash_of_text(text)}\n{text}"


def check_spec(file: Path) -> None:
    """Raise `AlteredFileError` if `spec.yaml` is not a file, was altered, or belongs to another study."""
    try:
        first, _, text = file.read_text(encoding="utf-8", errors="replace").partition("\n")
    except OSError as error:
        if error.errno not in {*NOT_A_FILE, errno.ENOENT}:
            raise
        raise AlteredFileError(str(file), "is not the file that was written") from error
    if first.startswith(_SPEC) and first.removeprefix(_SPEC) != _hash_of_text(text):
        raise AlteredFileError(str(file), "was altered after it was written")
    name = _SPEC_NAME.search(f"{first}\n{text}")
    if name is not None and name[1] != file.parent.name:
        raise AlteredFileError(str(file), of_study(name[1]))


def without_hash(text: str) -> str:
    """Return the text of `spec.yaml` without the comment with its hash."""
    return text.partition("\n")[2] if text.startswith(_SPEC) else text


def _hash_of_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def verified_line(line: bytes, form: Form) -> dict[str, Any] | None:
    """Return the values of a line of JSON, None if it was altered; see `atomic.verified`."""
    try:
        return verified(json.loads(line), form)
    except (ValueError, RecursionError):
        return None


def _is_manifest(value: dict[str, Any]) -> bool:
    files = value.get("files")
    return (
        isinstance(value.get("updates"), int)
        and isinstance(value.get("seconds"), float | int)
        and isinstance(files, dict)
        and all(_has_form(entry, _FILE) for entry in files.values())
    )


MANIFEST_FORM = Form(frozenset({"digest", "updates", "seconds", "files"}), _is_manifest)
"""The form of a manifest; those of version 0.2.0 and earlier have no `digest`."""


def _is_plan(value: dict[str, Any]) -> bool:
    stages, searches = value.get("stages"), value.get("searches", [])
    return (
        isinstance(value.get("journal_lines", 0), int)
        and isinstance(stages, dict)
        and all(is_name(digest) and isinstance(name, str) for digest, name in stages.items())
        and isinstance(searches, list)
        and all(_has_form(search, _SEARCH) for search in searches)
    )


_PLAN_FORM = Form(frozenset({"study", "stages", "after_search", "searches", "journal_lines"}), _is_plan)


def _is_driver(value: dict[str, Any]) -> bool:
    running, stages = value.get("running", []), value.get("stages", {})
    return (
        all(isinstance(value[name], kind) for name, kind in _DRIVER.items() if name in value)
        and {"state", "time", "stages"} <= value.keys()
        and all(isinstance(stages.get(name, 0), int) for name in ("running", "failed"))
        and "running" in stages
        and all(isinstance(stage, dict) for stage in running)
    )


_DRIVER_FORM = Form(frozenset({"study", *_DRIVER}), _is_driver)
_FAILURE_FORM = Form(frozenset(_FAILURE), lambda value: _has_form(value, _FAILURE))


def _has_form(value: object, form: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() >= form.keys()
        and all(isinstance(value[name], kind) for name, kind in form.items())
    )
