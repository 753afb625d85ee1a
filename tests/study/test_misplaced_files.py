"""Files of a storage that are missing, of the wrong kind or of another study: reported in one line or written again."""

import csv
import errno
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from study.analysis.derived_cache import study_table
from study.cli.main import main
from study.store.atomic import AlteredFileError, write_signed, write_table
from study.store.documents import read_driver, read_plan
from study.store.paths import COMPARISONS, DRIVER, FAILURES, FILES, MANIFEST, PLAN, RESULTS, SPEC, STAGE_SCORES, TESTS
from study.store.store import Store, score_files
from tests.support.finished import Finished, perform_all
from tests.support.tiny import planned

NAME, OTHER = "tiny", "other"
TABLES = RESULTS, COMPARISONS, TESTS
LINE = re.compile(r"^\S.*: \S.*; allowed: \S.*\n$")
Result = tuple[int, str, str]


@dataclass(frozen=True)
class Place:
    """A storage with two finished studies of different stages."""

    root: Path
    store: Store
    cache: Path
    read_output: Callable[[], tuple[str, str]]

    def command(self, *words: str | Path) -> Result:
        """Run a command on the storage; return exit status, stdout and stderr."""
        self.read_output()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "--storage", str(self.store.root)])
        return int(ended.value.code or 0), *self.read_output()

    def run(self) -> Result:
        return self.command("run", self.root / f"{NAME}.yaml", "--cache", self.cache)

    def readers(self) -> dict[str, Result]:
        """Return the outputs of commands that only read."""
        return {
            "status": self.command("status", NAME), "table": self.command("table", NAME, "--format", "csv"),
            "compare": self.command("compare", NAME, OTHER), "gc": self.command("gc"),
            "plan": self.command("plan", self.root / f"{NAME}.yaml", "--cache", self.cache),
        }  # fmt: skip

    def tables(self) -> list[pa.Table]:
        return [pq.read_table(self.store.study(NAME) / name) for name in TABLES]

    def stage(self, study: str = NAME) -> Path:
        plan = read_plan(self.store.study(study))
        assert plan is not None
        return self.store.stage(min(plan["stages"]))


@pytest.fixture(scope="module")
def origin(exclusive: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin")
    shutil.copytree(exclusive.store.root / "stages", root / "runs" / "stages")
    document = yaml.safe_load((exclusive.store.study(NAME) / SPEC).read_text())
    other = document | {"name": OTHER, "stages": {"segment": document["stages"]["segment"] | {"steps": 2}}}
    perform_all(planned(other, exclusive.cache), Store(root / "runs"), exclusive.cache)
    for study in (document, other):
        file = root / f"{study['name']}.yaml"
        file.write_text(yaml.safe_dump(study))
        with pytest.raises(SystemExit):
            main(["run", str(file), "--storage", str(root / "runs"), "--cache", str(exclusive.cache)])
    return root


@pytest.fixture
def place(origin: Path, exclusive: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    shutil.copytree(origin / "runs", tmp_path / "runs")
    return Place(
        root=origin, store=Store(tmp_path / "runs"), cache=exclusive.cache, read_output=lambda: capsys.readouterr()[:2]
    )


def check_refused_or_unchanged(results: dict[str, Result], sound: dict[str, Result]) -> set[str]:
    """Check that commands give the output of an intact storage or refuse in one line; return those that refuse."""
    for name, (status, out, err) in results.items():
        if status == 2:
            assert not out, name
            assert LINE.match(err), (name, err)
        else:
            assert (status, out, err) == sound[name], name
    return {name for name, result in results.items() if result[0] == 2}


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("y")


def to_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def to_missing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("name", [name for name in FILES if name not in {FAILURES, STAGE_SCORES}])
@pytest.mark.parametrize("change", [to_folder, to_loop, to_missing])
def test_a_run_replaces_paths_that_are_not_files(change: Callable[[Path], None], name: str, place: Place) -> None:
    sound, before = place.readers(), place.tables()
    change(place.store.study(NAME) / name)
    check_refused_or_unchanged(
        {key: value for key, value in place.readers().items() if (key, name) != ("status", DRIVER)}, sound
    )
    status, out, err = place.run()
    assert (status, err) == (0, "")
    assert (f"{name} is a folder; it is now {name}.damaged-" in out) == (change is to_folder)
    assert place.tables() == before
    assert place.readers() == sound


@pytest.mark.parametrize("name", ["report", "report/learning_curve.png"])
def test_a_folder_at_the_path_of_the_learning_curve_does_not_stop_a_run(name: str, place: Place) -> None:
    curve = place.store.study(NAME) / name
    shutil.rmtree(curve.parent if "/" in name else curve)
    curve.parent.mkdir(exist_ok=True)
    curve.mkdir() if "/" in name else curve.write_text("x")
    status, _, err = place.run()
    assert (status, "Traceback" in err) == (0 if "/" in name else 2, False)
    assert err == "" or LINE.match(err)


def test_a_damaged_learning_curve_is_drawn_again(place: Place) -> None:
    curve = place.store.study(NAME) / "report" / "learning_curve.png"
    sound = curve.read_bytes()
    damaged = bytearray(sound)
    damaged[len(sound) // 2] ^= 1
    curve.write_bytes(damaged)
    assert place.run()[0] == 0
    assert curve.read_bytes() == sound


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.parametrize("name", [SPEC, PLAN, DRIVER, RESULTS, COMPARISONS])
def test_a_file_of_another_study_is_refused_and_written_again(name: str, place: Place) -> None:
    sound, before = place.readers(), place.tables()
    shutil.copy2(place.store.study(OTHER) / name, place.store.study(NAME) / name)
    assert check_refused_or_unchanged(place.readers(), sound)
    with pytest.raises(SystemExit) as ended:
        main(["table", OTHER, "--storage", str(place.store.root)])
    assert ended.value.code == 0
    assert place.run()[0] == 0
    assert place.tables() == before
    assert place.readers() == sound


def test_nothing_is_removed_while_folders_of_studies_are_swapped(place: Place) -> None:
    stages = sorted((place.store.root / "stages").iterdir())
    swap(place.store.study(NAME), place.store.study(OTHER))
    status, out, err = place.command("gc", "--yes")
    assert (status, out) == (2, "")
    assert f"its plan.json is of study {OTHER} (was its folder renamed or copied?)" in err
    assert sorted((place.store.root / "stages").iterdir()) == stages


@pytest.mark.parametrize("fault", ["missing link", "file", "no access"])
def test_nothing_is_removed_while_studies_cannot_be_read(
    fault: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = place.store.root / "studies"
    stages = sorted((place.store.root / "stages").iterdir())
    if fault == "no access":  # root can read everything
        original = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != place.store.study(OTHER) and original(path, mode))
    else:
        shutil.rmtree(studies)
        studies.symlink_to("unmounted") if fault == "missing link" else studies.write_text("x")
    status, out, err = place.command("gc", "--yes")
    assert (status, out) == (2, "")
    assert LINE.match(err)
    assert sorted((place.store.root / "stages").iterdir()) == stages


@pytest.mark.cluster
def test_swapped_stages_are_trained_again(place: Place) -> None:
    before = place.tables()
    swap(place.stage(), place.stage(OTHER))
    status, _, err = place.command("compare", NAME, OTHER)
    assert status == 2
    assert "its manifest is missing, damaged or of another stage" in err
    status, out, _ = place.run()
    assert status == 0
    assert f"stage {place.stage().name}: its manifest is missing, damaged or of another stage; it was set aside" in out
    assert place.tables() == before


def test_scores_added_to_another_stage_are_not_read(place: Place) -> None:
    first, second = place.stage().name, place.stage(OTHER).name
    (key,) = place.store.scorings(second)
    tables = pq.read_table(place.store.scores(second, key)), pq.read_table(place.store.images(second, key))
    place.store.add_scores(second, "added", *tables)
    for name in score_files("added"):
        shutil.copy2(place.store.stage(second) / name, place.store.stage(first) / name)
    assert place.store.scores(second, "added").is_file()
    with pytest.raises(AlteredFileError, match=f"is of stage {second}"):
        place.store.scores(first, "added")


def test_a_table_with_missing_columns_is_refused(place: Place) -> None:
    sound = place.readers()
    pq.write_table(pa.table({"a": [1]}), place.store.study(NAME) / COMPARISONS)
    assert check_refused_or_unchanged(place.readers(), sound) == {"table", "compare"}
    with pytest.raises(AlteredFileError, match=r"lacks the columns more"):
        study_table(place.store.study(NAME), RESULTS, ["more"])


@pytest.mark.parametrize("name", [PLAN, DRIVER, MANIFEST])
def test_signed_values_of_another_format_are_refused(name: str, place: Place) -> None:
    sound = place.readers()
    file = place.stage() / MANIFEST if name == MANIFEST else place.store.study(NAME) / name
    write_signed(file, {"format": 2, "content": []})
    assert check_refused_or_unchanged(place.readers(), sound)


@pytest.mark.parametrize("name", [PLAN, DRIVER])
def test_signed_values_with_unknown_extra_keys_are_read(name: str, place: Place) -> None:
    sound, file = place.readers(), place.store.study(NAME) / name
    values = json.loads(file.read_text())
    del values["blake2b"]
    write_signed(file, values | {"later": 1})
    assert place.readers() == sound


@pytest.mark.parametrize("time", [4e9, float("nan")])
def test_a_study_with_a_heartbeat_in_the_future_is_not_running(time: float, place: Place) -> None:
    folder = place.store.study(NAME)
    driver = read_driver(folder)
    assert driver is not None
    write_signed(folder / DRIVER, driver | {"state": "running", "time": time})
    assert place.command("status", NAME)[1].startswith(f"{NAME}: interrupted\n")


def test_a_finished_study_without_a_plan_is_not_reported_as_finished(place: Place) -> None:
    (place.store.study(NAME) / PLAN).unlink()
    status, out, err = place.command("status", NAME)
    assert (status, out) == (2, "")
    assert "plan.json: is missing; allowed: " in err


def test_a_required_unwritable_folder_is_refused_before_training(place: Place) -> None:
    shutil.rmtree(place.store.root / "work", ignore_errors=True)
    (place.store.root / "work").write_text("x")
    status, out, err = place.run()
    assert (status, out) == (2, "")
    assert f"{place.store.root / 'work'} cannot be written ({os.strerror(errno.EEXIST)}); allowed: " in err


@pytest.mark.parametrize("content", [b"hello", b"\xff\xfe", b""])
def test_a_file_named_origin_does_not_make_a_mirror(content: bytes, place: Place) -> None:
    sound = place.readers()
    (place.store.root / "origin").write_bytes(content)
    assert place.readers() == sound


@pytest.mark.parametrize(
    "name", ["a b", "a'b\"c", "$(x);`y`", "100%s{x}", "[red]x[/red]", "-x", "#x?y", "日本", "s3:x"]
)
def test_a_storage_with_an_unusual_name_works_the_same(
    name: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, before = place.command("table", NAME, "--format", "csv"), place.tables()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.move(place.store.root, name)
    moved = Place(root=place.root, store=Store(Path(name)), cache=place.cache, read_output=place.read_output)
    assert moved.command("table", NAME, "--format", "csv") == sound
    assert moved.run()[0] == 0
    assert [pq.read_table(tmp_path / name / "studies" / NAME / table) for table in TABLES] == before


def test_a_home_folder_is_expanded_for_every_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = place.command("table", NAME)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (
        Place(root=place.root, store=Store(Path("~/runs")), cache=place.cache, read_output=place.read_output).command(
            "table", NAME
        )
        == sound
    )


@pytest.mark.parametrize("option", ["--storage", "--cache"])
def test_a_path_that_is_not_utf_8_is_refused(option: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(place.root / f"{NAME}.yaml"), option, "\udcff"])
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == f"{option}: \\udcff is not UTF-8; allowed: a path in UTF-8; rename the folder or choose another\n"
    )


def test_cells_of_a_csv_file_are_not_formulas(place: Place) -> None:
    file = place.store.study(NAME) / COMPARISONS
    table = pq.read_table(file)
    at = table.column_names.index("note")
    write_table(file, table.set_column(at, "note", pa.array(["=HYPERLINK(1)"] * table.num_rows)))
    status, out, _ = place.command("table", NAME, "--format", "csv")
    assert status == 0
    notes = [row["note"] for row in csv.DictReader(io.StringIO(out)) if row["study"]]
    assert notes
    assert set(notes) == {"'=HYPERLINK(1)"}


def test_closed_standard_streams_do_not_damage_files_of_a_study(place: Place) -> None:
    """The next opened file would get the number of a closed stream and receive the printed text."""
    words = shlex.join([sys.executable, "-m", "study", "run", str(place.root / f"{NAME}.yaml"),
                        "--cache", str(place.cache), "--storage", str(place.store.root)])  # fmt: skip
    before = place.tables()
    for name in TABLES:
        (place.store.study(NAME) / name).unlink()
    root = Path(__file__).parents[2]
    assert subprocess.run(f"{words} <&- >&- 2>&-", shell=True, cwd=root, check=False).returncode == 0
    assert place.tables() == before


def test_suggested_commands_quote_the_storage(place: Place, tmp_path: Path) -> None:
    odd = tmp_path / "a 'b\" $(touch injected)"
    shutil.move(place.store.root, odd)
    _, out, _ = Place(root=place.root, store=Store(odd), cache=place.cache, read_output=place.read_output).run()
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    words = [shlex.split(command) for command in line.removeprefix("next: ").split("; ")]
    assert [part[-2:] for part in words] == [["--storage", str(odd)]] * 3
