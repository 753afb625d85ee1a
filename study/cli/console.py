"""What the command line prints."""

import typer

from results.text import printable_lines


def say(text: str, *, error: bool = False, newline: bool = True) -> None:
    """Print lines on stdout, or on stderr; whatever is no visible character is escaped."""
    typer.echo(printable_lines(text), err=error, nl=newline)
