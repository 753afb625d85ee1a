"""Damaged files of a storage: commands refuse or ignore them without a traceback, and a run writes them again."""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from study.cli.main import main
from study.search.journal import count_lines, first_damage, open_journal, repair_journal
from study.store.atomic import signed, write_signed
from study.store.documents import read_driver, read_plan
from study.store.paths import (
    COMPARISONS,
    DRIVER,
    FAILURES,
    JOURNAL,
    MANIFEST,
    MEASURED,
    PLAN,
    RESULTS,
    SPEC,
    TESTS,
    WEIGHTS,
)
from study.store.store import RECORD, Store, score_files
from tests.support.damage import DAMAGES, damage, flip
from tests.support.finished import Finished, perform_all
from tests.support.tiny import planned, tiny

NAME, TWIN = "tiny", "twin"
TABLES = (RESULTS, COMPARISONS, TESTS)
LINE = re.compile(r"^\S.*: \S.*; allowed: \S.*$")
SEARCH = {"name": "arm", "study": "arm [0]", "metrics": ["val/mean_iou"], "trials": 3}


@dataclass(frozen=True)
class Place:
    """A storage with two finished studies that share their stages, of which the first also has a journal."""

    store: Store
    file: Path
    """The study file of the first study."""
    cache: Path
    images: Path
    read_output: Callable[[], tuple[str, str]]

    def command(self, *words: str | Path) -> tuple[int, str, str]:
        """Run a command on the storage; return exit status, stdout and stderr."""
        self.read_output()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "--storage", str(self.store.root)])
        return int(ended.value.code or 0), *self.read_output()

    def run(self) -> tuple[int, str, str]:
        """Run the first study."""
        return self.command("run", self.file, "--cache", self.cache)

    def tables(self) -> list[pa.Table]:
        """Return the derived tables of the first study."""
        return [pq.read_table(self.store.study(NAME) / name) for name in TABLES]

    def files(self) -> dict[str, Path]:
        """Return one stored file of each kind."""
        folder = self.store.study(NAME)
        plan = read_plan(folder)
        assert plan is not None
        stage = self.store.stage(next(iter(plan["stages"])))
        images, scores = score_files(self.store.scorings(stage.name)[0])
        inside = (MANIFEST, RECORD, WEIGHTS, "history.parquet", "transfer.json", images, scores)
        kinds = {name.partition("-")[0].partition(".")[0]: stage / name for name in inside}
        study_files = (SPEC, PLAN, DRIVER, FAILURES, *TABLES, MEASURED, JOURNAL)
        return kinds | {f"study's {name}": folder / name for name in study_files}


KINDS = (
    "seal", "stage", "weights", "history", "transfer", "images", "scores",
    *(f"study's {name}" for name in (SPEC, PLAN, DRIVER, FAILURES, *TABLES, MEASURED, JOURNAL)),
)  # fmt: skip


@pytest.fixture(scope="module")
def origin(exclusive: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the storage, two study files, and an image."""
    root = tmp_path_factory.mktemp("origin")
    shutil.copytree(exclusive.store.root / "stages", root / "runs" / "stages")
    document = yaml.safe_load((exclusive.store.study(NAME) / SPEC).read_text())
    for name in (NAME, TWIN):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(document | {"name": name}))
        with pytest.raises(SystemExit):
            main(["run", str(root / f"{name}.yaml"), "--storage", str(root / "runs"), "--cache", str(exclusive.cache)])
    folder = Store(root / "runs").study(NAME)
    _search(folder)
    failure = {"digest": "a" * 32, "stage": "segment", "error": "Diverged: the loss is nan"}
    (folder / FAILURES).write_text(json.dumps(signed(failure)) + "\n")
    driver = read_driver(folder)
    assert driver is not None
    write_signed(folder / DRIVER, driver | {"state": "failed", "stages": driver["stages"] | {"failed": 1}})
    Image.new("L", (40, 40), 90).save(root / "image.png")
    return root


def _search(folder: Path) -> None:
    """Write a journal with three trials, and record in the plan that there is a search."""
    journal = open_journal(folder, create=True)
    assert journal is not None
    study = optuna.create_study(storage=journal, study_name=SEARCH["study"], direction="maximize")
    for value in (0.1, 0.3, 0.2):
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs={"chain": ["c" * 32], "digest": "c" * 32}))
    plan = read_plan(folder)
    assert plan is not None
    write_signed(folder / PLAN, plan | {"searches": [SEARCH], "journal_lines": count_lines(folder)})


@pytest.fixture
def place(origin: Path, exclusive: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    """A copy of the storage; files of stages are hard links."""
    shutil.copytree(origin / "runs" / "stages", tmp_path / "runs" / "stages", copy_function=os.link)
    shutil.copytree(origin / "runs" / "studies", tmp_path / "runs" / "studies")
    return Place(
        store=Store(tmp_path / "runs"), file=origin / f"{NAME}.yaml", cache=exclusive.cache,
        images=origin / "image.png", read_output=lambda: tuple(capsys.readouterr()),
    )  # fmt: skip


def readers(place: Place, output: Path) -> dict[str, tuple[str | Path, ...]]:
    """Commands that read a study without training, by name."""
    cache = ("--cache", place.cache)
    return {
        "status": ("status", NAME),
        "table": ("table", NAME),
        "search": ("table", NAME, "--search"),
        "compare": ("compare", NAME, TWIN),
        "plan": ("plan", place.file, *cache),
        "gc": ("gc",),
        "twin": ("table", TWIN),
        "twin's status": ("status", TWIN),
        "report": ("report", NAME, "-o", output / "report.html", *cache),
        "predict": ("predict", NAME, place.images, "-o", output / "masks", *cache),
        "export": ("export", NAME, "-o", output / "network.safetensors", *cache),
    }


QUICK = ("status", "table", "search", "compare", "gc", "twin", "twin's status")


def outputs_of(place: Place, output: Path, names: tuple[str, ...]) -> dict[str, tuple[int, str, str]]:
    """Return the outputs of these commands, without the paths of written files."""
    words = readers(place, output)
    return {name: place.command(*words[name]) for name in names}


def check_refused_or_unchanged(place: Place, sound: dict[str, tuple[int, str, str]], output: Path) -> None:
    """Check that commands have the output of an undamaged storage, or refuse in one line with the remedy."""
    for name, (status, out, err) in outputs_of(place, output, tuple(sound)).items():
        if status == 2:
            assert not out, name
            assert [line for line in err.splitlines() if not LINE.match(line)] == [], name
            assert len(err.splitlines()) == 1, (name, err)
        else:
            assert (status, out) == sound[name][:2], (name, err)
            assert "Traceback" not in err, name


@pytest.mark.parametrize("kind", KINDS)
def test_commands_refuse_damaged_files_in_one_line_or_do_not_need_them(kind: str, place: Place, tmp_path: Path) -> None:
    sound = outputs_of(place, tmp_path, QUICK)
    assert {name: result[0] for name, result in sound.items()} == dict.fromkeys(QUICK, 0)
    file = place.files()[kind]
    content = file.read_bytes()
    for kind_of_damage in DAMAGES.values():
        damage(file, kind_of_damage)
        check_refused_or_unchanged(place, sound, tmp_path)
        file.write_bytes(content)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.cluster if kind == "seal" else ()) for kind in KINDS]
)
def test_a_run_after_one_flipped_bit_ends_with_the_same_tables(kind: str, place: Place) -> None:
    before = place.tables()
    file = place.files()[kind]
    flip(file, 4 * file.stat().st_size)
    status, _, err = place.run()
    assert (status, err) == (0, "")
    assert place.tables() == before
    assert place.command("status", NAME)[0] == place.command("table", NAME)[0] == 0


def test_measured_values_with_a_flipped_bit_are_measured_again(place: Place) -> None:
    before = place.tables()
    flip(place.store.study(NAME) / MEASURED, 9001)
    for name in TABLES:
        (place.store.study(NAME) / name).unlink()
    assert place.run()[0] == 0
    assert place.tables() == before


@pytest.mark.cluster
def test_scores_with_a_flipped_bit_are_set_aside_and_computed_again(place: Place) -> None:
    before, file = place.tables(), place.files()["scores"]
    flip(file, 20_000)
    for name in (*TABLES, MEASURED):
        (place.store.study(NAME) / name).unlink()
    status, out, _ = place.run()
    assert status == 0
    assert f"{file.name} was altered after it was written; it was set aside" in out
    assert place.tables() == before
    assert [path.name for path in (place.store.root / "damaged").glob(f"{file.parent.name}-*/scores-*")] == [file.name]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_commands_that_load_networks_or_write_reports_use_no_damaged_files(place: Place, tmp_path: Path) -> None:
    names = ("plan", "report", "predict", "export")
    for kind in KINDS:
        for kind_of_damage in ("one bit flipped", "cut off", "{}"):
            file = place.files()[kind]
            content = file.read_bytes()
            damage(file, DAMAGES[kind_of_damage])
            for name in names:
                shutil.rmtree(tmp_path / "out", ignore_errors=True)
                status, _, err = place.command(*readers(place, tmp_path / "out")[name])
                lines = [line for line in err.splitlines() if LINE.match(line)]
                assert status == 0 or (status, len(lines)) == (2, 1), (kind, kind_of_damage, name, err)
                assert "Traceback" not in err, (kind, kind_of_damage, name, err)
            file.unlink()
            file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(7200)
def test_two_hundred_flipped_bits_are_detected_or_harmless(place: Place, tmp_path: Path) -> None:
    before, chance = place.tables(), random.Random(21)
    kinds = [kind for kind in KINDS if kind != f"study's {FAILURES}"]  # a run starts without it
    for number in range(200):
        kind = kinds[number % len(kinds)]
        file = place.files()[kind]
        flip(file, chance.randrange(8 * file.stat().st_size))
        if chance.random() < 0.5:
            for name in TABLES:
                (place.store.study(NAME) / name).unlink(missing_ok=True)
        status, out, err = place.run()
        assert (status, err) == (0, ""), (number, kind, out)
        assert place.tables() == before, (number, kind)


@pytest.mark.parametrize("kind_of_damage", ["{}", "[]", "null", "cut off", "binary", "missing"])
def test_nothing_is_removed_while_the_plan_of_a_study_is_damaged(kind_of_damage: str, place: Place) -> None:
    file, stages = place.store.study(NAME) / PLAN, sorted((place.store.root / "stages").iterdir())
    shutil.rmtree(place.store.study(TWIN))
    if kind_of_damage == "missing":
        file.unlink()
    else:
        damage(file, DAMAGES[kind_of_damage])
    status, out, err = place.command("gc", "--yes")
    assert (status, out) == (2, "")
    assert re.fullmatch(rf".*: study {NAME}: its plan\.json .*; allowed: .*`study resume {NAME}`.*\n", err)
    assert sorted((place.store.root / "stages").iterdir()) == stages
    assert place.command("resume", NAME, "--cache", place.cache)[0] == 0
    assert place.command("gc", "--yes")[0] == 0
    assert sorted((place.store.root / "stages").iterdir()) == stages


def test_damaged_journal_keeps_the_trials_before_the_damage(place: Place) -> None:
    folder = place.store.study(NAME)
    file = folder / JOURNAL
    lines = file.read_bytes().splitlines(keepends=True)
    flip(file, 8 * len(b"".join(lines[:2])) + 101)
    damage_position = first_damage(folder)
    assert damage_position is not None
    assert damage_position.line == 2
    assert "in line 3; trials from there on are searched again" in str(repair_journal(folder))
    assert file.read_bytes() == b"".join(lines[:2])
    assert len(list(file.parent.glob("journal.log.damaged-*"))) == 1


def test_journal_without_its_last_lines_is_damaged(place: Place) -> None:
    file = place.store.study(NAME) / JOURNAL
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    _, _, err = place.command("table", NAME, "--search")
    assert f"is cut off: {len(lines) - 1} lines are left of {len(lines)} or more" in err


def test_journal_written_by_optuna_alone_is_read(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    file.parent.mkdir()
    backend = optuna.storages.journal.JournalFileBackend(str(file))
    optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name="other")
    journal = open_journal(tmp_path, create=False)
    assert journal is not None
    assert [study.study_name for study in journal.get_all_studies()] == ["other"]


@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_every_stored_file_follows_the_umask(umask: int, exclusive: Finished, tmp_path: Path) -> None:
    short = tiny({"pathways": {"none": ["segment"]}, "stages.segment.steps": 1, "compare.baseline": []})
    plan, store = planned(short, exclusive.cache), Store(tmp_path / "runs")
    before = os.umask(umask)
    try:
        perform_all(plan, store, exclusive.cache, first=1)
    finally:
        os.umask(before)
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {WEIGHTS, MANIFEST, RECORD}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o666 & ~umask)}
