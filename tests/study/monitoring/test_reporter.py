"""Lines on what a run does; time is that of a clock that the tests set."""

import io
from dataclasses import dataclass, field

from rich.console import Console

from study.monitoring.reporter import IDLE_SECONDS, Reporter


@dataclass
class Run:
    """A reporter, its output and its clock."""

    now: float = 0.0
    output: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.reporter = Reporter(Console(file=self.output, width=200), clock=lambda: self.now)

    @property
    def lines(self) -> list[str]:
        return self.output.getvalue().splitlines()

    def wait(self, seconds: float) -> None:
        """Let time pass, in which the reporter checks every second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.reporter.check()


def test_an_activity_is_printed_when_it_begins_and_again_while_nothing_else_is_printed() -> None:
    run = Run()
    run.reporter.begin("reading my.yaml and its data")
    assert run.lines == ["reading my.yaml and its data"]
    run.wait(20)
    assert run.lines[1:] == [
        "reading my.yaml and its data: 9 s so far",
        "reading my.yaml and its data: 18 s so far",
    ]


def test_no_line_is_added_where_others_are_printed() -> None:
    run = Run()
    run.reporter.begin("starting Ray")
    for _ in range(5):
        run.wait(IDLE_SECONDS - 1)
        run.reporter.line("a stage has ended")
    for _ in range(5):
        run.wait(IDLE_SECONDS - 1)
        run.reporter.shown_elsewhere()
    assert run.lines == ["starting Ray", *["a stage has ended"] * 5]


def test_an_activity_that_takes_a_moment_is_printed_only_if_it_takes_long() -> None:
    run = Run()
    run.reporter.begin("deriving the tables", at_once=False)
    run.reporter.check()
    assert run.lines == []
    run.wait(11)
    assert run.lines == ["deriving the tables", "deriving the tables: 10 s so far"]


def test_an_activity_that_has_ended_is_not_printed_afterwards() -> None:
    run = Run()
    run.reporter.begin("reading my.yaml and its data", at_once=False)
    run.reporter.begin("starting Ray")
    run.wait(3)
    assert run.lines == ["starting Ray"]


def test_a_live_view_needs_no_further_lines() -> None:
    run = Run()
    run.reporter.describe_with(lambda: "running")
    run.reporter.is_live = True
    run.wait(60)
    assert run.lines == []


def test_lines_are_printed_in_the_background_during_the_block() -> None:
    run = Run()
    run.reporter.describe_with(lambda: "running")
    run.now = 100.0
    with run.reporter.watching():
        while not run.lines:
            pass
    assert run.lines == ["running"]
