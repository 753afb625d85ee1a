"""What the documents say is so: commands run, files plan, tables of keys name what there is."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from datasets.sources import SOURCES
from models.architectures import ARCHITECTURES
from models.settings import (
    ClassificationSettings,
    LocalisationSettings,
    ReconstructionSettings,
    TargetKind,
    TaskSettings,
    losses_of,
)
from models.tasks import tasks
from results.schema import HIGHER_IS_BETTER, LOWER_IS_BETTER, comparisons, results
from study.document import parse_yaml, read_document
from study.factors import Compare
from study.load import load_plan
from study.spec import StudySpec
from study.stages import MaskStage
from tests import docs
from tests.data.own_data import write_own_data

README = docs.read("README.md")
CONTRIBUTING = docs.read("CONTRIBUTING.md")
TABLES = list(docs.key_tables(README))
TOLD = [model for models, _ in TABLES for model in models]
STUDY = docs.blocks(README, "yaml")
FRAGMENTS = docs.blocks(README, "yaml fragment") + docs.blocks(docs.read("study/README.md"), "yaml fragment")
COMMANDS = docs.commands(README, "study")
LIVING = ("run", "status", "table", "resume", "report", "predict")
"""Commands that need a study that ran."""
TINY = ("--set", "stages.segment.steps=2", "--set", "stages.classify.epochs=1", "--set", "image.size=32",
        "--set", "compare.folds=2", "--set", "compare.labelled_fraction=[1.0]")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a newcomer has it after the chapter on own data."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_own_data(folder / "my-data")
    (folder / "my-study.yaml").write_text(STUDY[0], encoding="utf-8")
    return folder


def run_line(line: str, place: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line.partition(">")[0])[1:]
    environment = os.environ | {"PYTHONPATH": str(docs.ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "study", *words, *extra],
        cwd=place, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_the_example_study_plans_on_the_example_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    plan = load_plan(read_document(Path("my-study.yaml")), file="my-study.yaml", cache=place / "cache")
    assert len(plan.replicates) == 2 * 2 * 3
    assert plan.warnings == []


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda text: text.strip().splitlines()[-1].strip()[:40])
def test_each_fragment_fits_the_example_study(fragment: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    document = docs.merged(read_document(Path("my-study.yaml")), parse_yaml(fragment))
    before = load_plan(read_document(Path("my-study.yaml")), file="my-study.yaml", cache=place / "cache")
    plan = load_plan(document, file="fragment", cache=place / "cache")
    waiting = sum(len(rows) for rows in plan.waiting.values())
    assert len(plan.replicates) + waiting > len(before.replicates)


def test_the_tree_of_the_example_folder_is_what_the_example_has(place: Path) -> None:
    (tree,) = docs.blocks(README, "text")[:1]
    names = [line.rsplit(" ", 1)[-1].strip("/") for line in tree.splitlines()]
    there = {path.name for path in place.glob("my-data/**/*")} | {"my-data", "..."}
    assert set(names) <= there


def test_commands_that_need_no_run_succeed(place: Path) -> None:
    lines = [line for line in COMMANDS if shlex.split(line)[1] not in LIVING]
    assert len(lines) >= 4
    for line in lines:
        ended = run_line(line, place)
        assert ended.returncode == 0, f"{line}: {ended.stderr}"
        if "--json" in line:
            assert json.loads(ended.stdout)["replicates"] > 0


@pytest.mark.cluster
def test_a_newcomer_gets_from_the_example_to_its_table(place: Path) -> None:
    lines = [line for line in COMMANDS if shlex.split(line)[1] in LIVING]
    assert {shlex.split(line)[1] for line in lines} >= {"run", "status", "table"}
    for line in lines:
        ended = run_line(line, place, *(TINY if line.startswith("study run") else ()))
        assert ended.returncode == 0, f"{line}: {ended.stderr}"
        assert "my-study" in ended.stdout
    assert (place / "runs" / "studies" / "my-study" / "report" / "learning_curve.png").is_file()
    (reading,) = docs.blocks(docs.read("study/README.md"), "python")
    shown = subprocess.run([sys.executable, "-c", reading], cwd=place, capture_output=True, text=True, check=True)
    assert "ci_low" in shown.stdout


@pytest.mark.parametrize(
    ("models", "rows"), TABLES, ids=lambda part: "" if isinstance(part, list) else next(iter(part)).__name__
)
def test_a_table_of_keys_has_every_key_with_its_default_and_its_words(
    models: docs.Models, rows: list[docs.Row]
) -> None:
    shown = {row.key: row for row in rows}
    fields = docs.own_fields(models)
    if Compare in models:
        fields["STAGE.KEY"] = fields.pop("factors")
    inherited = docs.inherited_keys(models, TOLD)
    assert sorted(shown) == sorted(fields.keys() - inherited)
    for key, row in shown.items():
        assert row.default == docs.default_text(fields[key]), key
        if key != "loss":
            assert docs.words_of(fields[key]) <= set(re.findall(r"[\w.+/]+:?", row.line)), key


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (ReconstructionSettings, "image"),
        (ClassificationSettings, "labels"),
        (LocalisationSettings, "centre"),
        (MaskStage, "mask"),
    ],
)
def test_the_losses_of_a_task_are_told(model: type[TaskSettings], target: TargetKind) -> None:
    (rows,) = [rows for models, rows in TABLES if models == {model: ""}]
    (line,) = [row.line for row in rows if row.key == "loss"]
    assert set(re.findall(r"`(\w+)`", line)) - {"loss"} == set(losses_of[target])


def test_every_part_of_the_study_file_has_a_table() -> None:
    def adds_keys(model: type[BaseModel]) -> bool:
        models = {model: ""}
        return bool(docs.own_fields(models).keys() - docs.inherited_keys(models, TOLD))

    untold = {model.__name__ for model in docs.sections_of(StudySpec) if model not in TOLD and adds_keys(model)}
    assert untold == set()


def test_every_source_and_task_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", README))
    assert {*SOURCES, *tasks} <= told


def test_every_study_of_the_catalog_is_told() -> None:
    told = set(re.findall(r"`(?:study/catalog/)?(\w+)(?:\.yaml)?`", README))
    assert {path.stem for path in (docs.ROOT / "study" / "catalog").glob("*.yaml")} <= told


def test_every_architecture_and_metric_is_told() -> None:
    words = set(re.findall(r"`(\w+)`", README))
    assert set(ARCHITECTURES) | HIGHER_IS_BETTER | LOWER_IS_BETTER | {"confidence"} <= words


def test_every_column_is_told() -> None:
    words = set(re.findall(r"`([a-z_]+)`", README))
    assert {*comparisons().names, *results().names} <= words


def test_every_command_is_told_and_exists() -> None:
    from study.cli import app

    told = set(re.findall(r"^\| `study ([a-z]+(?: [a-z]+)?)", README, flags=re.MULTILINE))
    groups = {"": app} | {f"{group.name} ": group.typer_instance for group in app.registered_groups}
    assert told == {
        prefix + (command.name or command.callback.__name__)
        for prefix, group in groups.items()
        if group is not None
        for command in group.registered_commands
        if command.callback
    }


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_make_targets_exist(text: str) -> None:
    makefile = docs.read("Makefile")
    for line in docs.commands(text, "make"):
        target = next(word for word in shlex.split(line)[1:] if "=" not in word)
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), line


@pytest.mark.parametrize("name", docs.DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text, folder = docs.read(name), (docs.ROOT / name).parent
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        file = (folder / path).resolve() if path else docs.ROOT / name
        assert file.exists(), link
        assert not anchor or anchor in docs.anchors(file.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", docs.DOCUMENTS)
def test_paths_in_the_code_exist(name: str) -> None:
    packages = "study|models|datasets|cluster|results|tests"
    for path in re.findall(rf"`((?:{packages})/[\w./-]*)`", docs.read(name)):
        there = docs.ROOT / path
        assert (there.parent if there.stem == "NAME" else there).exists(), path


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads(docs.read("pyproject.toml"))["project"]
    needed = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    tools = {re.split(r"[\[<>=]", line)[0] for line in project["optional-dependencies"]["dev"]}
    chapter = CONTRIBUTING.partition("## Dependencies")[2]
    rows = set(re.findall(r"^\| ([\w-]+) \|", chapter, flags=re.MULTILINE)) - {"package", "---"}
    assert rows - (tools - needed) == needed
    assert tools <= rows | set(re.findall(r"`([\w-]+)`", chapter))
