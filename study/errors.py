"""Errors of a study file: all problems at once, one line each."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from results.text import printable

LISTED = 40
"""Maximum number of allowed names in a message."""


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One problem of the input. `message` has the form `what is wrong; allowed: ...; remedy`."""

    path: str
    message: str

    def line(self, file: str) -> str:
        """Return the problem as one line with its location."""
        where = f"{file}: {self.path}" if self.path else file
        return printable(f"{where}: {self.message}")


class ConfigError(Exception):
    """The input is invalid; raised before anything runs."""

    def __init__(self, problems: Iterable[Problem], file: str) -> None:
        self.problems, self._of_file = sorted(set(problems)), file
        super().__init__("\n".join(problem.line(file) for problem in self.problems))

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.problems, self._of_file)


def unknown(kind: str, name: object, allowed: Iterable[str], *, meant: str | None = None) -> str:
    """Return the message for a name that is not allowed, with `meant` or the closest allowed name as a suggestion."""
    names = list(allowed)
    close = [meant] if meant else difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    rest = f", ... ({len(names):,} in all)" if len(names) > LISTED else ""
    return f"unknown {kind} {str(name)!r}; allowed: {', '.join(names[:LISTED]) or 'none is defined'}{rest}{hint}"
