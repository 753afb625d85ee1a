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


def test_a_terminal_shows_one_line_that_ends_with_the_last_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    update = read_progress.progress_line("ccxs")
    update(1, 2_000)
    update(2_000, 2_000)
    assert stream.getvalue() == "\rreading data.ccxs: 1 of 2,000 files\rreading data.ccxs: 2,000 of 2,000 files\n"


def test_a_pipe_shows_nothing_for_a_short_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    read_progress.progress_line("ccxs")(1, 1)
    assert stream.getvalue() == ""


def test_a_long_reading_is_announced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(read_progress, "time", clock)
    announced: list[float] = []
    update = read_progress.progress_line("ccxs", lambda: announced.append(clock.now))
    # Time of listing files is not counted; too early for an estimate; 1.6 s remain; 0.25 s remain.
    for clock.now, done in ((5.0, 0), (5.1, 1), (5.4, 20), (6.0, 80)):
        update(done, 100)
    assert announced == [5.4]


def test_a_long_reading_of_new_data_is_announced_unless_the_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_progress, "MIN_ELAPSED_SECONDS", -1.0)
    monkeypatch.setattr(read_progress, "LONG_SECONDS", -1.0)
    data = {name: {"source": "folder", "root": str(write_folder(tmp_path / name))} for name in ("clinic", "hospital")}
    announced: list[str] = []

    def plan(cache: str, **changes: object) -> None:
        document = base({"data": data, "leaks": "report", **changes})
        load_plan(document, file="new.yaml", cache=tmp_path / cache, meanwhile=lambda: announced.append(cache))

    plan("first")
    assert set(announced) == {"first"}
    announced.clear()
    plan("first")  # already read
    with pytest.raises(ConfigError):
        plan("second", no_such_key=1)
    assert not announced


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_new_images_are_resized_as_the_stages_require(tmp_path: Path) -> None:
    data = {name: {"source": "folder", "root": str(write_folder(tmp_path / name))} for name in ("clinic", "hospital")}
    changes = {"data": data, "leaks": "report", "stages.classify.image": {"size": 48}}
    plan = load_plan(base(changes), file="new.yaml", cache=tmp_path / "cache")
    required = {(step.settings.data, step.image) for arm in plan.arms for step in arm.chain}
    assert {image.size for _, image in required} == {48, 64}
    for name, image in required:
        assert plan.views[name].source.fitted(0, image) is not None
        assert plan.views[name].source.fitted(0, image.model_copy(update={"size": 40})) is None
