"""Output of the command line."""

import typer

from results.text import printable_lines


def say(text: str, *, error: bool = False, newline: bool = True) -> None:
    """Print lines on stdout or stderr; unprintable characters are escaped."""
    typer.echo(printable_lines(text), err=error, nl=newline)
