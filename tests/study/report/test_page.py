"""`study report` on a small trained study: finished, unfinished and without its data."""

import json
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.colors import to_hex

from study.analysis.tables import write_outcome
from study.cli.main import main
from study.config.document import with_paths
from study.config.schema import Checkpoint
from study.planning.graph import Plan
from study.report.facts import facts_of, facts_without_plan, read_results
from study.report.study_figures import study_figures
from study.store.atomic import write_json
from study.store.paths import COMPARISONS, DRIVER, FAILURES, PLAN, SPEC, TESTS
from study.store.store import WEIGHTS, Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests.support.browser import CHROMIUM, evaluated
from tests.support.page import Page, problems
from tests.support.tiny import planned, tiny

DOCUMENT = tiny({"stages.classify.epochs": 1, "stages.segment.steps": 4, "compare.labelled_fraction": [0.5, 1.0]})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def plan(cache: Path) -> Plan:
    return planned(DOCUMENT, cache)


def write_study(plan: Plan, storage: Path, *, state: str = "finished") -> None:
    folder = storage / "studies" / "tiny"
    folder.mkdir(parents=True)
    (folder / SPEC).write_text(yaml.safe_dump(DOCUMENT, sort_keys=False))
    write_json(folder / PLAN, {"stages": {name: node.step.stage for name, node in plan.nodes.items()}})
    write_json(folder / DRIVER, {"state": state, "time": time.time(), "stages": {"running": 1}})


@pytest.fixture(scope="module")
def trained(plan: Plan, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the finished study."""
    storage = tmp_path_factory.mktemp("storage")
    place = RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=Checkpoint())
    for node in plan.nodes.values():
        run_stage(stage_job(plan, node), place, WorkerContext(report=lambda _: None))
    write_study(plan, storage)
    write_outcome(plan, Store(storage))
    return storage


@pytest.fixture
def storage(trained: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def report(storage: Path, cache: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["report", "tiny", "--storage", str(storage), "--cache", str(cache), *words])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def file(trained: Path, cache: Path) -> Path:
    assert report(trained, cache) == 0
    return trained / "studies" / "tiny" / "report" / "report.html"


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page(file.read_text())


def read(storage: Path, cache: Path, *words: str) -> Page:
    """The report of a storage; images are left out by default because their prediction takes longest."""
    assert report(storage, cache, *(words or ("--no-images",))) == 0
    return Page((storage / "studies" / "tiny" / "report" / "report.html").read_text())


def test_the_report_is_self_contained_and_accessible(page: Page) -> None:
    assert problems(page) == []


def test_the_sections_are_in_the_documented_order(page: Page) -> None:
    ids = [e.attributes["id"] for e in page.all("section")]
    assert ids == [
        "answer", "results", "curve", "labels", "differences", "classes", "data", "pathways", "figures", "transfer",
        "failures", "cost", "software", "again",
    ]  # fmt: skip


def test_the_title_question_names_the_compared_factors(page: Page) -> None:
    question = page.all("p", **{"class": "question"})[0].text
    assert question.startswith(
        "Which of the pathways none, one_step segments hospital best when 50\N{NO-BREAK SPACE}% or"
    )
    assert question.endswith("is it better than the baseline (pathway=none)?")


def test_the_summary_has_two_sentences_on_the_comparisons(page: Page, trained: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(trained / "studies/tiny" / COMPARISONS).to_pylist()
    means = [
        row["mean"]
        for row in rows
        if (row["split"], row["aggregation"], row["class"], row["metric"]) == ("test", "dataset", "macro", "mean_iou")
    ]
    assert f"reached a mean IoU of {max(means):.3f} (95 % interval " in page.text("answer")
    assert len([e for e in page.all("p") if e.inside[-2:] == ("main", "section")][:2]) == 2


def test_every_cell_has_a_row(page: Page) -> None:
    rows = [" ".join(head.text.split()) for head in page.all("th", scope="row")][:4]
    assert rows == ["none", "none", "one_step", "one_step"]


def test_every_test_states_its_generalisation(page: Page) -> None:
    tests = page.text("differences")
    assert "fold and seed (dataset) this one pretraining run Nadeau-Bengio" in tests
    assert "these models, new patients" in tests


def test_images_patients_and_splits_are_counted(page: Page, plan: Plan) -> None:
    text = page.text("data")
    assert "clinic pretraining phantom 16 8 " in text
    assert "hospital target phantom 16 8 16 " in text
    split = plan.views["hospital"].split(fold=0, seed=0, labelled=1.0)
    assert f"100 % {split.labelled_images} {len(split.validation)} " in text
    assert "No pretraining image shares a patient" in text


def test_shared_stages_are_counted_once_and_the_saved_time_is_stated(page: Page, plan: Plan, trained: Path) -> None:
    store = Store(trained)
    trained_seconds = sum(store.manifest(digest)["seconds"] for digest in plan.nodes)
    naive = sum(store.manifest(digest)["seconds"] for replicate in plan.replicates for digest in replicate.chain)
    text = page.text("cost")
    assert text.count("classify initial weights classification on clinic 1 1 4") == 1
    assert f"sharing saved {naive - trained_seconds:.0f} s ({1 - trained_seconds / naive:.0%})" in text


def test_the_transfer_audit_counts_the_tensors_of_each_link(page: Page, plan: Plan, trained: Path) -> None:
    child = next(node for node in plan.nodes.values() if node.parent)
    transfer = json.loads((Store(trained).stage(child.digest) / "transfer.json").read_text())
    sizes = " ".join(str(len(transfer[name])) for name in ("carried", "new", "left_behind"))
    assert f"classify to segment (encoder) unet / tu-lcnet_050 {sizes} nothing" in page.text("transfer")


def test_software_commands_and_digests_are_stated(page: Page, plan: Plan) -> None:
    assert f"torch {version('torch')} ({len(plan.nodes)} stages)" in page.text("software")
    again = page.text("again")
    assert "study run tiny.yaml" in again
    assert all(digest in again for digest in plan.nodes)


def test_every_figure_has_a_text_alternative(page: Page) -> None:
    words = " ".join(image.attributes["alt"] or "" for image in page.all("img"))
    for kind in (
        "Line chart",
        "Dot chart",
        "Bar chart",
        "Graph of the pathways",
        "Reliability",
        "ROC",
        "Training curves",
        "Test",
    ):
        assert kind in words


def test_test_images_are_omitted_on_request(storage: Path, cache: Path) -> None:
    report_page = read(storage, cache, "--no-images")
    assert not [image for image in report_page.all("img") if "Test images" in (image.attributes["alt"] or "")]


def test_without_weights_the_test_images_are_omitted_with_a_reason(storage: Path, cache: Path, plan: Plan) -> None:
    for weights in storage.glob(f"stages/*/{WEIGHTS}"):
        weights.unlink()
    text = read(storage, cache, "--images").text("figures")
    assert "Test images are not shown: the weights of the best cell were not kept" in text


def test_the_report_of_a_running_study_states_missing_results(storage: Path, cache: Path, plan: Plan) -> None:
    last = list(plan.nodes)[-1]
    shutil.rmtree(storage / "stages" / last)
    write_json(storage / "studies/tiny" / DRIVER, {"state": "running", "time": time.time(), "stages": {"running": 1}})
    (storage / "studies/tiny" / COMPARISONS).unlink()
    text = read(storage, cache).text("missing")
    assert f"The study is running: {len(plan.nodes) - 1} of {len(plan.nodes)} stages are finished, 1 running" in text
    assert f"{len(plan.replicates) - 1} of {len(plan.replicates)} runs have results" in text


def test_hours_of_annotation_have_a_section_and_budgets_a_summary(storage: Path, cache: Path) -> None:
    minutes = {"data.hospital.annotation_minutes": {"mask": 15}, "compare.hours": [1.5]}
    document = with_paths(DOCUMENT, minutes)
    (storage / "studies/tiny" / SPEC).write_text(yaml.safe_dump(document, sort_keys=False))
    write_outcome(planned(document, cache), Store(storage))
    report_page = read(storage, cache)
    assert problems(report_page) == []
    assert "Annotated already, at no cost, because annotation_minutes is not set: clinic." in report_page.text("hours")
    assert "With 1.5 hours of annotation, " in report_page.text("answer")
    assert any("hours of annotation" in (image.attributes["alt"] or "") for image in report_page.all("img"))


def test_tables_of_an_older_version_are_recomputed(storage: Path, cache: Path) -> None:
    import pyarrow.parquet as pq

    file = storage / "studies/tiny" / TESTS
    pq.write_table(pq.read_table(file).drop_columns(["generalises_to"]), file)
    assert "these models, new patients" in read(storage, cache).text("differences")


def test_a_study_without_any_result_has_a_report(tmp_path: Path, cache: Path, plan: Plan) -> None:
    write_study(plan, tmp_path, state="running")
    report_page = read(tmp_path, cache)
    assert problems(report_page) == []
    assert "There is no result yet." in report_page.text("answer")
    assert "not run yet" in report_page.all("img")[0].attributes["alt"] or ""


def test_failures_are_listed(storage: Path, cache: Path, plan: Plan) -> None:
    digest = next(iter(plan.nodes))
    failure = {"digest": digest, "stage": "classify", "error": "Diverged: loss is nan <here>\ntrace"}
    (storage / "studies/tiny" / FAILURES).write_text(json.dumps(failure) + "\n")
    report_page = read(storage, cache)
    assert f"classify {digest[:8]} Diverged: loss is nan <here>" in report_page.text("failures")
    assert "The study is failed" in report_page.text("missing")


def test_a_report_without_the_data_states_the_reason_and_omitted_parts(storage: Path, cache: Path) -> None:
    moved = tiny({"data.hospital": {"source": "folder", "root": str(storage / "gone")}})
    (storage / "studies/tiny" / SPEC).write_text(yaml.safe_dump(moved))
    report_page = read(storage, cache, "--images")
    assert problems(report_page) == []
    assert "created from the stored results alone" in report_page.text("missing")
    assert "Counts of images and patients are not available" in report_page.text("data")
    assert "classify to segment" in report_page.text("transfer")
    assert "Test images are not shown: the data cannot be read" in report_page.text("figures")


def test_data_that_changed_after_training_are_not_used(storage: Path, cache: Path) -> None:
    changed = DOCUMENT | {"data": DOCUMENT["data"] | {"clinic": {**DOCUMENT["data"]["clinic"], "seed": 12}}}
    (storage / "studies/tiny" / SPEC).write_text(yaml.safe_dump(changed))
    assert "the data or the platform has changed since the study ran" in read(storage, cache).text("missing")


def test_facts_from_the_store_equal_those_from_the_plan(plan: Plan, trained: Path) -> None:
    store = Store(trained)
    with_plan = facts_of(plan, store)
    without_plan = facts_without_plan(store, "tiny", read_results(store, "tiny"), "gone", "labelled_fraction")
    assert without_plan.stages.keys() == with_plan.stages.keys()
    assert {(chain.labelled, chain.fold, chain.stages) for chain in without_plan.chains} == {
        (chain.labelled, chain.fold, chain.stages) for chain in with_plan.chains
    }
    assert sorted(without_plan.groups.values()) == sorted(with_plan.groups.values())


def test_the_report_and_its_figures_are_written_to_the_given_paths(storage: Path, cache: Path, tmp_path: Path) -> None:
    words = ["-o", tmp_path / "a/b.html", "--figures", tmp_path / "f", "--format", "png"]
    assert report(storage, cache, *map(str, words)) == 0
    assert (tmp_path / "a/b.html").is_file()
    names = {path.name for path in (tmp_path / "f").iterdir()}
    assert {"learning_curve_dice.png", "pathways.png", "cases.png", "roc.png", "training.png"} <= names


def test_an_unknown_study_and_an_unwritable_path_are_refused(
    storage: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert report(storage, cache, "-o", str(tmp_path / "file/x.html")) == 2
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["report", "tyni", "--storage", str(storage)])
    assert ended.value.code == 2
    assert "unknown study 'tyni'" in capsys.readouterr().err


def test_an_arm_has_the_same_colour_in_every_figure(trained: Path, cache: Path) -> None:
    drawn = study_figures(trained, "tiny", cache=cache, images=False)
    names = {text.get_text(): to_hex(text.get_color()) for text in drawn["learning_curve_mean_iou"].axes[0].texts}
    assert names.keys() == {"none", "one_step"}
    bars = {patch.get_label(): to_hex(patch.get_facecolor()) for patch in drawn["classes"].legends[0].get_patches()}
    lines = {line.get_label(): to_hex(line.get_color()) for line in drawn["roc"].legends[0].get_lines()}
    assert bars.items() <= names.items()
    assert {name: colour for name, colour in lines.items() if name != "Chance"}.items() <= names.items()
    assert len(bars) == 2


PRESS = """
const table = document.querySelector("table.sorts.filters"), heads = [...table.tHead.rows[0].cells];
const column = heads.findIndex((head) => head.textContent.includes("mean IoU"));
const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.value));
Object.assign(state, {before: values(), press: []});
for (let i = 0; i < 2; i++) {
  heads[column].querySelector("button").click();
  state.press.push([heads[column].getAttribute("aria-sort"), values()]);
}
const input = document.querySelector(".filter input");
input.value = "one_step"; input.dispatchEvent(new Event("input"));
state.shown = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim());
state.status = document.querySelector("[role=status]").textContent;
const resources = performance.getEntriesByType("resource").map((entry) => entry.name);
state.requests = resources.filter((name) => !name.startsWith("data:"));
state.broken = [...document.images].filter((image) => !image.naturalWidth).length;
"""
LAYOUT = """
document.querySelectorAll("details").forEach((details) => { details.open = true; });
state.width = window.innerWidth;
state.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const beyond = (element) => element.getBoundingClientRect().right > window.innerWidth + 0.5;
const scrolls = (element) => element.closest(".scroll, pre, .skip") !== null;
state.beyond = [...document.querySelectorAll("body *")].filter((e) => beyond(e) && !scrolls(e)).length;
const boxes = [...document.querySelectorAll("#curve figure")].map((figure) => figure.getBoundingClientRect());
state.curves = boxes.map((box) => [Math.round(box.left), Math.round(box.top)]);
state.main = document.querySelector("main").getBoundingClientRect().width;
"""


@pytest.fixture(scope="module")
def browse(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], tuple[dict[str, Any], str]]:
    """Open the page in a browser at a width and run a script; return its state and the console."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    return lambda script, width: evaluated(file.read_text(), script, width=width, folder=folder)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_page_sorts_filters_and_makes_no_requests(
    width: int, browse: Callable[[str, int], tuple[dict[str, Any], str]]
) -> None:
    state, console = browse(PRESS, width)
    assert console == ""
    values = state["before"]
    assert state["press"] == [["ascending", sorted(values)], ["descending", sorted(values, reverse=True)]]
    assert state["shown"] == ["one_step", "one_step"]
    assert state["status"] == "2 of 4 rows"
    assert (state["requests"], state["broken"]) == ([], 0)


@pytest.mark.browser
def test_a_desktop_has_figures_beside_each_other_over_its_whole_width(
    browse: Callable[[str, int], tuple[dict[str, Any], str]],
) -> None:
    state, _ = browse(LAYOUT, 1280)
    assert (state["width"], state["overflow"], state["beyond"]) == (1280, 0, 0)
    assert state["main"] > 0.9 * 1280
    (left, top), (right, other_top) = state["curves"][:2]
    assert top == other_top
    assert right - left > 500


@pytest.mark.browser
def test_a_phone_scrolls_only_within_tables_and_figures(
    browse: Callable[[str, int], tuple[dict[str, Any], str]],
) -> None:
    state, _ = browse(LAYOUT, 390)
    assert (state["width"], state["overflow"], state["beyond"]) == (390, 0, 0)
    (left, top), (other_left, below) = state["curves"][:2]
    assert left == other_left
    assert below > top
