"""The documents are correct: commands run, study files plan, tables list every key, links have targets."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from datasets.augment_settings import PRESETS
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
from models.task_settings.masking import MaskedReconstructionSettings
from models.tasks import tasks
from results.schema import HIGHER_IS_BETTER, LOWER_IS_BETTER, comparisons, results
from study.config.compare import Compare
from study.config.document import parse_yaml, read_document
from study.config.schema import StudySpec
from study.config.stages import MaskStage
from study.search.load import load_plan
from tests import docs
from tests.support.own_data import write_own_data

README = docs.read("README.md")
CONTRIBUTING = docs.read("CONTRIBUTING.md")
TEXTS = [docs.read(name) for name in docs.USER_DOCUMENTS]
REFERENCE = "\n".join(TEXTS)
"""README and all pages of `study/docs`."""
TABLES = list(docs.key_tables(REFERENCE))
DOCUMENTED = [model for models, _ in TABLES for model in models]
OWN_STUDY = docs.blocks(README, "yaml")[0]
STUDIES = docs.blocks(REFERENCE, "yaml")
FRAGMENTS = docs.blocks(REFERENCE, "yaml fragment")
COMMANDS = list(dict.fromkeys(docs.commands(REFERENCE, "study")))
BLOCK_KINDS = {"sh", "yaml", "yaml fragment", "python", "text"}
"""Kinds of blocks in these documents; all but `text` are run."""
LIVING = ("run", "status", "table", "resume", "report", "predict", "figures")
"""Commands that need a finished study."""
TINY = ("--set", "stages.segment.steps=2", "--set", "stages.classify.epochs=1", "--set", "image.size=32",
        "--set", "compare.folds=2", "--set", "compare.labelled_fraction=[1.0]")  # fmt: skip
README_LINES = 200
IMAGE_BYTES = 60_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the state after the README's section on own data."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_own_data(folder / "my-data")
    (folder / "my-study.yaml").write_text(OWN_STUDY, encoding="utf-8")
    return folder


def run_line(line: str, place: Path, *extra: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line.partition(">")[0])[1:]
    environment = os.environ | {"PYTHONPATH": str(docs.ROOT), "XDG_CACHE_HOME": str(place / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "study", *words, *extra],
        cwd=cwd or place, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES


def test_the_images_of_the_documents_are_small() -> None:
    images = [path for path in (docs.ROOT / "study" / "docs").iterdir() if path.suffix not in (".md", ".ipynb")]
    assert images
    assert all(path.stat().st_size < IMAGE_BYTES for path in images)


def test_every_block_is_of_a_kind_that_is_run_or_plain_text() -> None:
    assert {kind for text in TEXTS for kind, _ in docs.fenced(text)} <= BLOCK_KINDS


def test_every_shell_line_calls_a_tested_program() -> None:
    lines = docs.shell_lines(REFERENCE)
    assert {line.split(" ")[0] for line in lines} == {"study", "make"}


@pytest.mark.parametrize("study", STUDIES, ids=lambda text: text.splitlines()[0])
def test_each_study_plans_on_the_example_folder(study: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert load_plan(parse_yaml(study), file="study.yaml", cache=place / "cache").replicates


def test_the_example_study_plans_without_warnings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    plan = load_plan(read_document(Path("my-study.yaml")), file="my-study.yaml", cache=place / "cache")
    assert len(plan.replicates) == 2 * 2 * 3
    assert plan.warnings == ()


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda text: text.strip().splitlines()[-1].strip()[:40])
def test_each_fragment_fits_the_example_study(fragment: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    document = docs.merged(read_document(Path("my-study.yaml")), parse_yaml(fragment))
    before = load_plan(read_document(Path("my-study.yaml")), file="my-study.yaml", cache=place / "cache")
    plan = load_plan(document, file="fragment", cache=place / "cache")
    waiting = sum(len(rows) for rows in plan.graph.waiting.values())
    assert len(plan.replicates) + waiting > len(before.replicates)


def test_the_tree_of_the_example_folder_lists_existing_files(place: Path) -> None:
    (tree,) = docs.blocks(README, "text")[:1]
    names = [line.rsplit(" ", 1)[-1].strip("/") for line in tree.splitlines()]
    existing = {path.name for path in place.glob("my-data/**/*")} | {"my-data", "..."}
    assert set(names) <= existing


def test_commands_without_a_finished_study_succeed(place: Path) -> None:
    lines = [line for line in COMMANDS if shlex.split(line)[1] not in LIVING]
    assert len(lines) >= 4
    for line in lines:
        ended = run_line(line, place)
        assert ended.returncode == 0, f"{line}: {ended.stderr}"
        if "--json" in line:
            assert json.loads(ended.stdout)["replicates"] > 0


@pytest.mark.cluster
def test_the_commands_from_the_example_to_its_tables_succeed(place: Path) -> None:
    lines = [line for line in COMMANDS if shlex.split(line)[1] in LIVING]
    assert {shlex.split(line)[1] for line in lines} >= {"run", "status", "table"}
    for line in lines:
        ended = run_line(line, place, *(TINY if line.startswith("study run") else ()))
        assert ended.returncode == 0, f"{line}: {ended.stderr}"
        assert "my-study" in ended.stdout
    assert (place / "runs" / "studies" / "my-study" / "report" / "learning_curve.png").is_file()
    scripts = {
        name: "\n".join(docs.blocks(text, "python")) for name, text in zip(docs.USER_DOCUMENTS, TEXTS, strict=True)
    }
    for script in filter(None, scripts.values()):  # the blocks of a page follow each other
        environment = os.environ | {"XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(docs.ROOT)}
        printed = subprocess.run(
            [sys.executable, "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert printed.returncode == 0, printed.stderr
        assert "ci_low" in printed.stdout


@pytest.mark.cluster
def test_make_demo_succeeds(tmp_path: Path) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=docs.ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in printed.splitlines() if "study demo" in line]
    short = (*TINY, "--set", "stages.boxes.epochs=1", "--storage", str(tmp_path / "runs"))
    ended = run_line(line, tmp_path, *short, cwd=docs.ROOT)
    assert ended.returncode == 0, ended.stderr
    assert {"none", "one_step", "two_step"} <= set(re.findall(r"^\| (\w+) \|", ended.stdout, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("models", "rows"), TABLES, ids=lambda part: "" if isinstance(part, list) else next(iter(part)).__name__
)
def test_a_table_of_keys_has_every_key_with_its_default_and_its_values(
    models: docs.Models, rows: list[docs.Row]
) -> None:
    shown = {row.key: row for row in rows}
    fields = docs.own_fields(models)
    if Compare in models:
        fields["STAGE.KEY"] = fields.pop("factors")
    inherited = docs.inherited_keys(models, DOCUMENTED)
    assert sorted(shown) == sorted(fields.keys() - inherited)
    for key, row in shown.items():
        assert row.default == docs.default_text(fields[key]), key
        if key != "loss":
            words = {word for value in docs.words_of(fields[key]) for word in value.split()}
            assert words <= set(re.findall(r"[\w.+/]+:?", row.line)), key


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (ReconstructionSettings, "image"),
        (MaskedReconstructionSettings, "image"),
        (ClassificationSettings, "labels"),
        (LocalisationSettings, "centre"),
        (MaskStage, "mask"),
    ],
)
def test_the_losses_of_a_task_are_documented(model: type[TaskSettings], target: TargetKind) -> None:
    (rows,) = [rows for models, rows in TABLES if models == {model: ""}]
    (line,) = [row.line for row in rows if row.key == "loss"]
    assert set(re.findall(r"`(\w+)`", line)) - {"loss"} == set(losses_of[target])


def test_every_part_of_the_study_file_has_a_table() -> None:
    def adds_keys(model: type[BaseModel]) -> bool:
        models = {model: ""}
        return bool(docs.own_fields(models).keys() - docs.inherited_keys(models, DOCUMENTED))

    sections = docs.sections_of(StudySpec)
    assert {model.__name__ for model in sections if model not in DOCUMENTED and adds_keys(model)} == set()


def test_the_values_of_the_presets_of_augmentation_are_documented() -> None:
    (table,) = re.findall(r"^<!-- presets of augmentation -->\n+((?:\|.*\n)+)", REFERENCE, flags=re.MULTILINE)
    (_, *names), _, *rows = ([cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in
                            table.splitlines())  # fmt: skip
    shown = {name: {row[0]: float(row[column]) for row in rows if row[column]} for column, name in enumerate(names, 1)}
    assert shown == PRESETS


def test_every_source_and_task_is_documented() -> None:
    assert {*SOURCES, *tasks} <= quoted_in("data.md", "study-file.md")


@pytest.mark.parametrize("text", [README, docs.read("study/docs/presets.md")], ids=["README", "presets"])
def test_every_study_of_the_catalog_is_documented(text: str) -> None:
    assert {path.stem for path in (docs.ROOT / "study" / "catalog").glob("*.yaml")} <= set(re.findall(r"`(\w+)`", text))


def test_every_architecture_is_documented() -> None:
    assert set(ARCHITECTURES) <= quoted_in("study-file.md")


def test_every_metric_and_column_is_documented() -> None:
    metrics = HIGHER_IS_BETTER | LOWER_IS_BETTER | {"confidence"}
    assert {*metrics, *comparisons().names, *results().names} <= quoted_in("results.md")


def quoted_in(*guides: str) -> set[str]:
    """Return the single words in backticks of pages of `study/docs`."""
    return {word for name in guides for word in re.findall(r"`(\w+)`", docs.read(f"study/docs/{name}"))}


def options_by_command() -> dict[str, set[str]]:
    """Return every command with the options that it has."""
    from study.cli.main import app

    commands: dict[str, set[str]] = {}
    groups = [("", typer.main.get_command(app))]
    for prefix, group in groups:
        for name, command in getattr(group, "commands", {}).items():
            if hasattr(command, "commands"):
                groups.append((f"{prefix}{name} ", command))
            else:
                commands[prefix + name] = {
                    option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
                }
    return commands


def test_every_command_is_documented_with_options_that_exist() -> None:
    options, page = options_by_command(), docs.read("study/docs/commands.md")
    rows = re.findall(r"^(\| `study ([a-z]+(?: [a-z]+)?).*)$", page, flags=re.MULTILINE)
    texts = [(name, row) for row, name in rows]
    assert {name for name, _ in texts} == options.keys()
    texts += [("predict", docs.section(page, "Prediction")), ("export", docs.section(page, "Export"))]
    for name, text in texts:
        assert set(re.findall(r"(?<=[ `\[])(--?[a-z][a-z-]*)", text)) <= options[name], name


@pytest.mark.parametrize("text", [REFERENCE, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_make_targets_exist(text: str) -> None:
    makefile = docs.read("Makefile")
    for line in docs.commands(text, "make"):
        target = next(word for word in shlex.split(line)[1:] if "=" not in word)
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), line


@pytest.mark.parametrize("name", docs.DOCUMENTS)
def test_links_have_a_target_and_its_anchor(name: str) -> None:
    folder = (docs.ROOT / name).parent
    for link in docs.links(docs.read(name)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        file = (folder / path).resolve() if path else docs.ROOT / name
        assert file.exists(), link
        assert not anchor or anchor in docs.anchors(file.read_text(encoding="utf-8")), link


def test_the_readme_links_to_every_guide() -> None:
    assert set(docs.GUIDES) <= {link.partition("#")[0] for link in docs.links(README)}


@pytest.mark.parametrize("name", docs.DOCUMENTS)
def test_paths_in_the_code_exist(name: str) -> None:
    packages = "study|models|datasets|cluster|results|tests"
    for path in re.findall(rf"`((?:{packages})/[\w./-]*)`", docs.read(name)):
        file = docs.ROOT / path
        assert (file.parent if file.stem == "NAME" else file).exists(), path


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads(docs.read("pyproject.toml"))["project"]
    needed = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    tools = {re.split(r"[\[<>=]", line)[0] for line in project["optional-dependencies"]["dev"]}
    chapter = CONTRIBUTING.partition("## Dependencies")[2]
    rows = set(re.findall(r"^\| ([\w-]+) \|", chapter, flags=re.MULTILINE)) - {"package", "---"}
    assert rows - (tools - needed) == needed
    assert tools <= rows | set(re.findall(r"`([\w-]+)`", chapter))
