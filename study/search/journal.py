"""The Optuna journal of the searches of a study. Each line has an additional hash, which other programs ignore."""

import os
import shutil
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from study.store.atomic import HASH, AlteredFileError, Form, signed
from study.store.documents import read_plan, verified_line
from study.store.paths import JOURNAL
from study.store.retry import append_with_retries

_HASHED = f'"{HASH}":'.encode()


def journal_file(folder: Path) -> Path:
    """Return the path of the journal in the folder of a study."""
    return folder / JOURNAL


def journal_stages(folder: Path) -> frozenset[str]:
    """Return the digests of all stages of candidates in the journal. Raises `AlteredFileError`."""
    journal = open_journal(folder, create=False)
    if journal is None:
        return frozenset()
    trials = [trial for study in journal.get_all_studies() for trial in journal.get_all_trials(study._study_id)]
    return frozenset(name for trial in trials for name in trial.user_attrs.get("chain", ()))


def open_journal(folder: Path, *, create: bool) -> JournalStorage | None:
    """Open the journal; None if it does not exist, unless `create`. Raises `AlteredFileError`."""
    file = journal_file(folder)
    damage = first_damage(folder)
    if damage is not None:
        raise AlteredFileError(str(file), damage.problem)
    if not file.is_file() and not create:
        return None
    if create:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_partial_line(file)
    return JournalStorage(_Backend(file))


def open_intact_part(folder: Path) -> tuple[JournalStorage | None, str | None]:
    """Open the journal up to its first damaged line; return the storage, if any, and the damage, if any."""
    file, damage = journal_file(folder), first_damage(folder)
    if not file.is_file():
        return None, f"{file} {damage.problem}" if damage is not None else None
    if damage is None:
        return JournalStorage(_Backend(file)), None
    return JournalStorage(_Backend(file, lines=damage.line)), f"{file} {damage.problem}"


def repair_journal(folder: Path) -> str | None:
    """Truncate a damaged journal before the damage and keep a copy; return a message, None if it is intact."""
    file, damage = journal_file(folder), first_damage(folder)
    if damage is None:
        return None
    message = f"{file} {damage.problem}; trials from there on are searched again"
    if file.is_file():
        copy = file.with_name(f"{file.name}.damaged-{uuid.uuid4().hex[:8]}")
        shutil.copyfile(file, copy)
        os.truncate(file, damage.start)
        message += f", and a copy is kept in {copy.name}"
    return message


@dataclass(frozen=True)
class JournalDamage:
    """The first damaged line of a journal: its number from 0 and its byte offset."""

    line: int
    start: int
    problem: str


def count_lines(folder: Path) -> int:
    """Return the number of lines of the journal."""
    return _content(journal_file(folder)).count(b"\n")


def first_damage(folder: Path) -> JournalDamage | None:
    """Return the first damage of a journal, None if it is intact. A partially written last line is ignored."""
    min_lines = _min_lines(folder)  # first: a driver appends lines, then writes their number into the plan
    file, start, hashed = journal_file(folder), 0, False
    lines = [line for line in _content(file).splitlines(keepends=True) if line.endswith(b"\n")]
    for number, line in enumerate(lines):
        log = verified_line(line, _LOG)
        if log is None or (hashed and _HASHED not in line):
            return JournalDamage(number, start, f"was altered after it was written, in line {number + 1}")
        hashed = hashed or _HASHED in line
        start += len(line)
    if not hashed and lines:  # from version 0.2.0 or earlier, or another program: check that Optuna can read it
        try:
            JournalStorage(_Backend(file))
        except Exception:  # noqa: BLE001 - invalid lines may raise anything
            return JournalDamage(0, 0, "is not what Optuna writes")
    if len(lines) < min_lines:
        return JournalDamage(len(lines), start, f"is cut off: {len(lines)} lines are left of {min_lines} or more")
    return None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _min_lines(folder: Path) -> int:
    """Return the number of lines of the journal when the plan was last written."""
    try:
        return int((read_plan(folder) or {}).get("journal_lines", 0))
    except AlteredFileError:  # reported by the reader of the plan
        return 0


def _is_log(value: dict[str, Any]) -> bool:
    return isinstance(value.get("op_code"), int) and isinstance(value.get("worker_id"), str)


_LOG = Form(None, _is_log)


class _Backend(JournalFileBackend):
    """A journal file with hashed lines. Failed writes are retried; only one driver writes at a time.

    Args:
        file: the journal.
        lines: maximum number of lines to read.
    """

    def __init__(self, file: Path, *, lines: int | None = None) -> None:
        super().__init__(str(file))
        self._file, self._lines = file, lines

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the logs from a line number on, without their hashes."""
        logs = super().read_logs(log_number_from)
        end = None if self._lines is None else max(self._lines - log_number_from, 0)
        for log in islice(logs, end):
            yield {name: value for name, value in log.items() if name != HASH}

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append logs with their hashes."""
        append_with_retries(self._file, partial(super().append_logs, [signed(log) for log in logs]))


def _remove_partial_line(file: Path) -> None:
    """Remove an incomplete last line, left by a killed driver; the next log would be appended to it."""
    if file.is_file():
        content = file.read_bytes()
        os.truncate(file, content.rfind(b"\n") + 1)
