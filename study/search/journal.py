"""The journal of a study's searches, as Optuna writes it: each line carries a hash, which other programs pass over."""

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
from study.store.retry import append_patiently

_HASHED = f'"{HASH}":'.encode()


def journal_file(folder: Path) -> Path:
    """Return where the journal of a study's folder lies."""
    return folder / JOURNAL


def journalled(folder: Path) -> frozenset[str]:
    """Return the stages of all candidates that the journal of a study's folder names. Raises `AlteredFileError`."""
    journal = open_journal(folder, create=False)
    if journal is None:
        return frozenset()
    trials = [trial for one in journal.get_all_studies() for trial in journal.get_all_trials(one._study_id)]
    return frozenset(name for trial in trials for name in trial.user_attrs.get("chain", ()))


def open_journal(folder: Path, *, create: bool) -> JournalStorage | None:
    """Open the journal; None where there is none and none is to be made. Raises `AlteredFileError`."""
    file = journal_file(folder)
    damage = first_damage(folder)
    if damage is not None:
        raise AlteredFileError(str(file), damage.what)
    if not file.is_file() and not create:
        return None
    if create:
        file.parent.mkdir(parents=True, exist_ok=True)
        _cut_half_line(file)
    return JournalStorage(_Backend(file))


def open_sound_part(folder: Path) -> tuple[JournalStorage | None, str | None]:
    """Open the journal up to its first damaged line, None where there is none; return what is damaged, too."""
    file, damage = journal_file(folder), first_damage(folder)
    if not file.is_file():
        return None, f"{file} {damage.what}" if damage is not None else None
    if damage is None:
        return JournalStorage(_Backend(file)), None
    return JournalStorage(_Backend(file, lines=damage.line)), f"{file} {damage.what}"


def repair_journal(folder: Path) -> str | None:
    """Set a damaged journal aside and keep the lines before the damage; return what was done, None if it is sound."""
    file, damage = journal_file(folder), first_damage(folder)
    if damage is None:
        return None
    told = f"{file} {damage.what}; trials from there on are searched again"
    if file.is_file():
        aside = file.with_name(f"{file.name}.damaged-{uuid.uuid4().hex[:8]}")
        shutil.copyfile(file, aside)
        os.truncate(file, damage.start)
        told += f", and a copy is kept in {aside.name}"
    return told


@dataclass(frozen=True)
class Damage:
    """The first line of a journal that is not as it was written: its number from 0, and the byte it begins at."""

    line: int
    start: int
    what: str


def count_lines(folder: Path) -> int:
    """Return how many lines the journal of a study's folder has."""
    return _content(journal_file(folder)).count(b"\n")


def first_damage(folder: Path) -> Damage | None:
    """Return where a journal is damaged, None where it is not. A last line that is still being written is left out."""
    least = _least_lines(folder)  # first: a driver appends lines, then writes their number into the plan
    file, start, hashed = journal_file(folder), 0, False
    lines = [line for line in _content(file).splitlines(keepends=True) if line.endswith(b"\n")]
    for number, line in enumerate(lines):
        log = verified_line(line, _LOG)
        if log is None or (hashed and _HASHED not in line):
            return Damage(number, start, f"was altered after it was written, in line {number + 1}")
        hashed = hashed or _HASHED in line
        start += len(line)
    if not hashed and lines:  # of version 0.2.0 or earlier, or of another program: Optuna itself has to understand it
        try:
            JournalStorage(_Backend(file))
        except Exception:  # noqa: BLE001 - whatever a foreign line makes it raise
            return Damage(0, 0, "is not what Optuna writes")
    if len(lines) < least:
        return Damage(len(lines), start, f"is cut off: {len(lines)} lines are left of {least} or more")
    return None


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def _least_lines(folder: Path) -> int:
    """Return how many lines the journal had when the plan was last written."""
    try:
        return int((read_plan(folder) or {}).get("journal_lines", 0))
    except AlteredFileError:  # what reads the plan says so
        return 0


def _is_log(value: dict[str, Any]) -> bool:
    return isinstance(value.get("op_code"), int) and isinstance(value.get("worker_id"), str)


_LOG = Form(None, _is_log)


class _Backend(JournalFileBackend):
    """A journal whose lines carry their hash. The storage may refuse writes for a while; one driver writes at a time.

    With `lines` only so many are read.
    """

    def __init__(self, file: Path, *, lines: int | None = None) -> None:
        super().__init__(str(file))
        self._file, self._lines = file, lines

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the lines from this number on."""
        logs = super().read_logs(log_number_from)
        end = None if self._lines is None else max(self._lines - log_number_from, 0)
        for log in islice(logs, end):
            yield {name: value for name, value in log.items() if name != HASH}

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines."""
        append_patiently(self._file, partial(super().append_logs, [signed(log) for log in logs]))


def _cut_half_line(file: Path) -> None:
    """Remove what a driver that was killed left of a line: the next one would be written behind it."""
    if file.is_file():
        content = file.read_bytes()
        os.truncate(file, content.rfind(b"\n") + 1)
