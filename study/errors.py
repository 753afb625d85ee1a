"""What is wrong with a study file, one line a problem, all of them at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from results.text import printable

LISTED = 40
"""Allowed names that a message lists."""


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One refusal. `message` reads `what is wrong; allowed: ...; remedy`."""

    path: str
    message: str

    def line(self, file: str) -> str:
        """Return the line a user sees."""
        where = f"{file}: {self.path}" if self.path else file
        return printable(f"{where}: {self.message}")


class ConfigError(Exception):
    """The input was refused before anything ran."""

    def __init__(self, problems: Iterable[Problem], file: str) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(problem.line(file) for problem in self.problems))


def unknown(kind: str, name: object, allowed: Iterable[str], *, meant: str | None = None) -> str:
    """Return the message for a name that is none of `allowed`; `meant` is suggested, else the closest of these."""
    names = list(allowed)
    close = [meant] if meant else difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    more = f", ... ({len(names):,} in all)" if len(names) > LISTED else ""
    return f"unknown {kind} {str(name)!r}; allowed: {', '.join(names[:LISTED]) or 'none is defined'}{more}{hint}"
