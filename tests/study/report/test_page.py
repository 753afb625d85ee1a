"""`study report` on a small study that was really trained, finished, unfinished and moved away from its data."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from study.analysis.tables import write_outcome
from study.cli.main import main
from study.config.document import with_paths
from study.config.schema import Checkpoint
from study.planning.graph import Plan
from study.report.facts import facts_of, facts_without_plan, read_results
from study.store.atomic import write_json
from study.store.paths import COMPARISONS, DRIVER, FAILURES, PLAN, SPEC, TESTS
from study.store.store import WEIGHTS, Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests.support.page import Page, problems
from tests.support.tiny import planned, tiny

DOCUMENT = tiny({"stages.classify.epochs": 1, "stages.segment.steps": 4, "compare.labelled_fraction": [0.5, 1.0]})
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
    """The page of a storage; predicting test images once more takes longest and is left out unless asked for."""
    assert report(storage, cache, *(words or ("--no-images",))) == 0
    return Page((storage / "studies" / "tiny" / "report" / "report.html").read_text())


def test_the_page_stands_alone_and_can_be_read_by_anyone(page: Page) -> None:
    assert problems(page) == []


def test_the_parts_stand_in_the_order_a_reader_asks(page: Page) -> None:
    ids = [e.attributes["id"] for e in page.all("section")]
    assert ids == [
        "answer", "results", "curve", "labels", "differences", "classes", "data", "pathways", "figures", "transfer",
        "failures", "cost", "software", "again",
    ]  # fmt: skip


def test_the_question_names_what_was_compared(page: Page) -> None:
    question = page.all("p", **{"class": "question"})[0].text
    assert question.startswith(
        "Which of the pathways none, one_step segments hospital best when 50\N{NO-BREAK SPACE}% or"
    )
    assert question.endswith("is it better than the baseline (pathway=none)?")


def test_the_answer_is_two_sentences_of_the_comparisons(page: Page, trained: Path) -> None:
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


def test_every_test_says_what_it_generalises_to(page: Page) -> None:
    tests = page.text("differences")
    assert "fold and seed (dataset) this one pretraining run Nadeau-Bengio" in tests
    assert "these models, new patients" in tests


def test_images_patients_and_splits_are_counted(page: Page, plan: Plan) -> None:
    said = page.text("data")
    assert "clinic pretraining phantom 16 8 " in said
    assert "hospital target phantom 16 8 16 " in said
    split = plan.views["hospital"].split(fold=0, seed=0, labelled=1.0)
    assert f"100 % {split.labelled_images} {len(split.validation)} " in said
    assert "No pretraining image shares a patient" in said


def test_shared_stages_are_counted_once_and_what_sharing_saved_is_told(page: Page, plan: Plan, trained: Path) -> None:
    store = Store(trained)
    spent = sum(store.manifest(digest)["seconds"] for digest in plan.nodes)
    naive = sum(store.manifest(digest)["seconds"] for one in plan.replicates for digest in one.chain)
    said = page.text("cost")
    assert said.count("classify initial weights classification on clinic 1 1 4") == 1
    assert f"sharing saved {naive - spent:.0f} s ({1 - spent / naive:.0%})" in said


def test_the_transfer_audit_counts_the_tensors_of_each_link(page: Page, plan: Plan, trained: Path) -> None:
    child = next(node for node in plan.nodes.values() if node.parent)
    told = json.loads((Store(trained).stage(child.digest) / "transfer.json").read_text())
    sizes = " ".join(str(len(told[name])) for name in ("carried", "new", "left_behind"))
    assert f"classify to segment (encoder) unet / tu-lcnet_050 {sizes} nothing" in page.text("transfer")


def test_software_commands_and_digests_are_told(page: Page, plan: Plan) -> None:
    assert f"torch {version('torch')} ({len(plan.nodes)} stages)" in page.text("software")
    again = page.text("again")
    assert "study run tiny.yaml" in again
    assert all(digest in again for digest in plan.nodes)


def test_every_figure_says_in_words_what_it_shows(page: Page) -> None:
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


def test_test_images_are_left_out_on_request(storage: Path, cache: Path) -> None:
    shown = read(storage, cache, "--no-images")
    assert not [image for image in shown.all("img") if "Test images" in (image.attributes["alt"] or "")]


def test_without_weights_the_test_images_are_left_out_with_a_reason(storage: Path, cache: Path, plan: Plan) -> None:
    for weights in storage.glob(f"stages/*/{WEIGHTS}"):
        weights.unlink()
    said = read(storage, cache, "--images").text("figures")
    assert "Test images are not shown: the weights of the best cell were not kept" in said


def test_a_study_that_runs_has_a_report_that_says_what_is_missing(storage: Path, cache: Path, plan: Plan) -> None:
    last = list(plan.nodes)[-1]
    shutil.rmtree(storage / "stages" / last)
    write_json(storage / "studies/tiny" / DRIVER, {"state": "running", "time": time.time(), "stages": {"running": 1}})
    (storage / "studies/tiny" / COMPARISONS).unlink()
    said = read(storage, cache).text("missing")
    assert f"The study is running: {len(plan.nodes) - 1} of {len(plan.nodes)} stages are finished, 1 running" in said
    assert f"{len(plan.replicates) - 1} of {len(plan.replicates)} runs have results" in said


def test_hours_of_annotation_have_a_section_and_budgets_an_answer(storage: Path, cache: Path) -> None:
    minutes = {"data.hospital.annotation_minutes": {"mask": 15}, "compare.hours": [1.5]}
    document = with_paths(DOCUMENT, minutes)
    (storage / "studies/tiny" / SPEC).write_text(yaml.safe_dump(document, sort_keys=False))
    write_outcome(planned(document, cache), Store(storage))
    shown = read(storage, cache)
    assert problems(shown) == []
    assert "Annotated already, at no cost, because annotation_minutes is not set: clinic." in shown.text("hours")
    assert "With 1.5 hours of annotation, " in shown.text("answer")
    assert any("hours of annotation" in (image.attributes["alt"] or "") for image in shown.all("img"))


def test_tables_of_an_older_version_are_derived_again(storage: Path, cache: Path) -> None:
    import pyarrow.parquet as pq

    file = storage / "studies/tiny" / TESTS
    pq.write_table(pq.read_table(file).drop_columns(["generalises_to"]), file)
    assert "these models, new patients" in read(storage, cache).text("differences")


def test_a_study_without_any_result_has_a_report(tmp_path: Path, cache: Path, plan: Plan) -> None:
    write_study(plan, tmp_path, state="running")
    shown = read(tmp_path, cache)
    assert problems(shown) == []
    assert "There is no result yet." in shown.text("answer")
    assert "not run yet" in shown.all("img")[0].attributes["alt"] or ""


def test_failures_are_listed(storage: Path, cache: Path, plan: Plan) -> None:
    digest = next(iter(plan.nodes))
    failure = {"digest": digest, "stage": "classify", "error": "Diverged: loss is nan <here>\ntrace"}
    (storage / "studies/tiny" / FAILURES).write_text(json.dumps(failure) + "\n")
    shown = read(storage, cache)
    assert f"classify {digest[:8]} Diverged: loss is nan <here>" in shown.text("failures")
    assert "The study is failed" in shown.text("missing")


def test_a_report_from_the_store_alone_says_why_and_what_cannot_be_told(storage: Path, cache: Path) -> None:
    moved = tiny({"data.hospital": {"source": "folder", "root": str(storage / "gone")}})
    (storage / "studies/tiny" / SPEC).write_text(yaml.safe_dump(moved))
    shown = read(storage, cache, "--images")
    assert problems(shown) == []
    assert "created from the stored results alone" in shown.text("missing")
    assert "Counts of images and patients are not available" in shown.text("data")
    assert "classify to segment" in shown.text("transfer")
    assert "Test images are not shown: the data cannot be read" in shown.text("figures")


def test_data_that_changed_since_is_not_taken_for_what_was_trained(storage: Path, cache: Path) -> None:
    changed = DOCUMENT | {"data": DOCUMENT["data"] | {"clinic": {**DOCUMENT["data"]["clinic"], "seed": 12}}}
    (storage / "studies/tiny" / SPEC).write_text(yaml.safe_dump(changed))
    assert "the data or the platform has changed since the study ran" in read(storage, cache).text("missing")


def test_the_store_alone_knows_the_same_stages_and_runs_as_the_plan(plan: Plan, trained: Path) -> None:
    store = Store(trained)
    whole = facts_of(plan, store)
    alone = facts_without_plan(store, "tiny", read_results(store, "tiny"), "gone", "labelled_fraction")
    assert alone.stages.keys() == whole.stages.keys()
    assert {(one.labelled, one.fold, one.stages) for one in alone.chains} == {
        (one.labelled, one.fold, one.stages) for one in whole.chains
    }
    assert sorted(alone.groups.values()) == sorted(whole.groups.values())


def test_the_page_and_its_figures_go_where_they_are_asked_to(storage: Path, cache: Path, tmp_path: Path) -> None:
    words = ["-o", tmp_path / "a/b.html", "--figures", tmp_path / "f", "--format", "png"]
    assert report(storage, cache, *map(str, words)) == 0
    assert (tmp_path / "a/b.html").is_file()
    names = {path.name for path in (tmp_path / "f").iterdir()}
    assert {"learning_curve_dice.png", "pathways.png", "cases.png", "roc.png", "training.png"} <= names


def test_an_unknown_study_and_a_place_that_cannot_be_written_are_refused(
    storage: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert report(storage, cache, "-o", str(tmp_path / "file/x.html")) == 2
    assert "cannot be written" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["report", "tyni", "--storage", str(storage)])
    assert ended.value.code == 2
    assert "unknown study 'tyni'" in capsys.readouterr().err


PRESS = """<script>
const table = document.querySelector("table.sorts.filters"), heads = [...table.tHead.rows[0].cells];
const column = heads.findIndex((head) => head.textContent.includes("mean IoU"));
const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.value));
const told = {before: values(), press: []};
for (let i = 0; i < 2; i++) {
  heads[column].querySelector("button").click();
  told.press.push([heads[column].getAttribute("aria-sort"), values()]);
}
const input = document.querySelector(".filter input");
input.value = "one_step"; input.dispatchEvent(new Event("input"));
told.shown = [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim());
told.status = document.querySelector("[role=status]").textContent;
told.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const asked = performance.getEntriesByType("resource").map((one) => one.name);
told.requests = asked.filter((name) => !name.startsWith("data:"));
told.broken = [...document.images].filter((image) => !image.naturalWidth).length;
document.body.insertAdjacentHTML("beforeend", `<pre id="told">${JSON.stringify(told)}</pre>`);
</script></body>"""


@pytest.fixture(scope="module")
def browse(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[dict[str, object], str]]:
    """Open the page in a browser of some width and press what there is; return what is seen and the console."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    pressed = folder / "page.html"
    pressed.write_text(file.read_text().replace("</body>", PRESS))

    def open_page(width: int) -> tuple[dict[str, object], str]:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
        ]
        words = [CHROMIUM, *options, f"--user-data-dir={folder}/{width}", f"--window-size={width},900", "--dump-dom"]
        done = subprocess.run([*words, pressed.as_uri()], capture_output=True, text=True, timeout=120, check=True)
        told = Page(done.stdout).text("told")
        return json.loads(told), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

    return open_page


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_page_sorts_filters_and_asks_the_network_for_nothing(
    width: int, browse: Callable[[int], tuple[dict[str, object], str]]
) -> None:
    told, console = browse(width)
    assert console == ""
    values = told["before"]
    assert isinstance(values, list)
    assert told["press"] == [["ascending", sorted(values)], ["descending", sorted(values, reverse=True)]]
    assert told["shown"] == ["one_step", "one_step"]
    assert told["status"] == "2 of 4 rows"
    assert (told["requests"], told["broken"], told["overflow"]) == ([], 0, 0)
