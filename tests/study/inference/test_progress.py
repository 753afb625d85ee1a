"""Progress of `study predict`; time is that of a clock that the tests set."""

import io

from rich.console import Console

from study.inference.progress import PredictionProgress


def shown(*, terminal: bool, seconds: float) -> str:
    """Return the output of the prediction of four images, each in some seconds; the second one cannot be read."""
    output, now = io.StringIO(), [0.0]
    console = Console(file=output, force_terminal=terminal, width=100, color_system=None)
    with PredictionProgress(4, console=console, clock=lambda: now[0]) as progress:
        for number in range(4):
            now[0] += seconds
            progress.done("left out: b.png cannot be read" if number == 1 else "")
    return output.getvalue()


def test_a_pipe_gets_problems_at_once_and_a_line_every_few_seconds() -> None:
    assert shown(terminal=False, seconds=3.0).splitlines() == [
        "left out: b.png cannot be read",
        "predicting: 2 of 4 images",
        "predicting: 4 of 4 images",
    ]


def test_a_short_prediction_in_a_pipe_prints_problems_alone() -> None:
    assert shown(terminal=False, seconds=0.1).splitlines() == ["left out: b.png cannot be read"]


def test_a_terminal_gets_one_bar() -> None:
    output = shown(terminal=True, seconds=1.0)
    assert "4/4 images" in output
    assert "left out: b.png cannot be read" in output
    assert "predicting: " not in output
