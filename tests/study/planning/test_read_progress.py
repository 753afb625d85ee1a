import io
from pathlib import Path

import pytest

from study.errors import ConfigError
from study.planning import read_progress
from study.search.load import load_plan
from tests.support.documents import base
from tests.support.folder import write_folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_sees_one_line_that_ends_with_the_last_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    tell = read_progress.progress_line("ccxs")
    tell(1, 2_000)
    tell(2_000, 2_000)
    assert shown.getvalue() == "\rreading data.ccxs: 1 of 2,000 files\rreading data.ccxs: 2,000 of 2,000 files\n"


def test_pipe_sees_nothing_of_a_short_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    read_progress.progress_line("ccxs")(1, 1)
    assert shown.getvalue() == ""


def test_what_takes_a_while_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(read_progress, "time", clock)
    told: list[float] = []
    tell = read_progress.progress_line("ccxs", lambda: told.append(clock.now))
    # Listing files takes as long as it takes; too early to know; 1.6 s are left; a quarter of a second is.
    for clock.now, done in ((5.0, 0), (5.1, 1), (5.4, 20), (6.0, 80)):
        tell(done, 100)
    assert told == [5.4]


def test_new_data_are_said_to_take_a_while_unless_the_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_progress, "MIN_ELAPSED_SECONDS", -1.0)
    monkeypatch.setattr(read_progress, "LONG_SECONDS", -1.0)
    data = {name: {"source": "folder", "root": str(write_folder(tmp_path / name))} for name in ("clinic", "hospital")}
    told: list[str] = []

    def plan(cache: str, **changes: object) -> None:
        document = base({"data": data, "leaks": "report", **changes})
        load_plan(document, file="new.yaml", cache=tmp_path / cache, meanwhile=lambda: told.append(cache))

    plan("first")
    assert set(told) == {"first"}
    told.clear()
    plan("first")  # read already
    with pytest.raises(ConfigError):
        plan("second", no_such_key=1)
    assert not told


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_new_images_are_fitted_as_the_stages_that_read_them_ask(tmp_path: Path) -> None:
    data = {name: {"source": "folder", "root": str(write_folder(tmp_path / name))} for name in ("clinic", "hospital")}
    changes = {"data": data, "leaks": "report", "stages.classify.image": {"size": 48}}
    plan = load_plan(base(changes), file="new.yaml", cache=tmp_path / "cache")
    asked = {(step.settings.data, step.image) for arm in plan.arms for step in arm.chain}
    assert {image.size for _, image in asked} == {48, 64}
    for name, image in asked:
        assert plan.views[name].source.fitted(0, image) is not None
        assert plan.views[name].source.fitted(0, image.model_copy(update={"size": 40})) is None
