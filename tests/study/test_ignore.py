"""A study of masks with pixels without a label (`ignore`), from the files to tables and predictions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from datasets.settings import ImageSettings
from datasets.targets import fit_masks
from study.analysis.tables import write_outcome
from study.cli.main import main
from study.report.cases import predict_cases, select_extremes
from study.report.facts import facts_of
from study.store.store import Store
from tests.support.documents import base, write_study
from tests.support.finished import CLASSES, IMAGES, Finished, perform_all, write_pictures
from tests.support.folder import write_folder
from tests.support.tiny import planned, tiny

Capture = pytest.CaptureFixture[str]
VOID = "p4"
"""The image without any label, so that it is neither trained on nor scored."""
SIZE = 40
STAGES: dict[str, Any] = {
    "segmentation": {
        "loss": {"cross_entropy": 1.0, "dice": 1.0, "boundary_cross_entropy": 0.5},
        "class_threshold": {"class": CLASSES[0], "false_positive_rate": 0.05},
        "augment": {"rotate": 10},
    },
    "adversarial": {"adversarial": {"discriminator": {"name": "patchgan", "receptive_field": 16}, "lambda1": 0.1}},
    "consistency": {"consistency": {"method": "cross_pseudo"}},
}


def unlabelled(name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Unlabelled pixels of an image of the study: a border, and single pixels."""
    places = np.random.default_rng(int(name[1:])).random(shape) < (1.0 if name == VOID else 0.2)
    places[:5] = True
    return np.asarray(places)


def study_of(root: Path, *, task: str, both_ids: bool) -> Finished:
    """Finish a study whose masks have 255 at unlabelled pixels, or 254 and 255 at random."""
    data, cache, store = root / "data", root / "cache", Store(root / "runs")
    write_pictures(data, overlapping=False)
    draw = np.random.default_rng(0)
    for file in sorted((data / "masks").iterdir()):
        ids = np.array(Image.open(file))
        ids[unlabelled(file.stem, ids.shape)] = 255
        garbage = draw.integers(254, 256, ids.shape, dtype=np.uint8)
        Image.fromarray(np.where(both_ids & (ids == 255), garbage, ids).astype(np.uint8)).save(file)
    document = tiny({
        "data": {"hospital": {"source": "folder", "root": str(data), "ignore": [255, 254]}},
        "validation": {"min_cases": 1},
        "image.fit": "letterbox",
        "evaluate": {"size": SIZE},
        "metrics": {"background": True},
        "keep": {"weights": "all"},
        "stages": {"segment": {"task": task, "data": "hospital", "steps": 8, "batch_size": 4,
                               "optimizer": {"name": "adam", "lr": 0.005}} | STAGES[task]},
        "pathways": {"none": ["segment"]},
        "compare.labelled_fraction": [1.0 if task == "segmentation" else 0.7],
    })  # fmt: skip
    plan = planned(document, cache)
    perform_all(plan, store, cache)
    store.study("tiny").mkdir(parents=True)
    (store.study("tiny") / "spec.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    write_outcome(plan, store)
    return Finished(store, plan, data, cache)


@pytest.fixture(scope="module", params=list(STAGES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Finished]:
    """Two studies that differ in which of two ignored ids their masks contain."""
    root = tmp_path_factory.mktemp(request.param)
    first, second = (
        study_of(root / str(both_ids), task=request.param, both_ids=both_ids) for both_ids in (False, True)
    )
    return first, second


def run(*words: str | Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    assert not ended.value.code


def tables(study: Finished) -> Iterator[pa.Table]:
    """Yield the study's tables without digests, and scores, images and history of each stage."""
    for name in ("results", "comparisons"):
        table = pq.read_table(study.store.study("tiny") / f"{name}.parquet")
        yield table.drop_columns([column for column in ("digest", "scoring") if column in table.column_names])
    for digest in study.stages:
        for kind in ("scores", "images"):
            (file,) = study.store.stage(digest).glob(f"{kind}-*.parquet")
            table = pq.read_table(file)
            yield table.drop_columns(["patient"] if kind == "images" else [])  # contains the folder of the data
        history = pq.read_table(study.store.stage(digest) / "history.parquet")
        yield history.drop_columns([name for name in history.column_names if "second" in name])


def test_the_choice_of_ignored_id_does_not_change_the_results(pair: tuple[Finished, Finished]) -> None:
    first, second = pair
    assert set(first.stages).isdisjoint(second.stages)
    for row, again in zip(tables(first), tables(second), strict=True):
        assert row.num_rows
        assert row.to_pydict().keys() == again.to_pydict().keys()
        # As text, because NaN is unequal to itself; it has every digit of a number.
        assert str(row.to_pylist()) == str(again.to_pylist())
    for digest, same in zip(first.stages, second.stages, strict=True):
        assert first.store.weights(digest).read_bytes() == second.store.weights(same).read_bytes()


def test_tables_and_predictions_are_equal_for_both_ids(
    pair: tuple[Finished, Finished], tmp_path: Path, capsys: Capture
) -> None:
    outputs = []
    for number, study in enumerate(pair):
        storage = ("--storage", study.store.root)
        run("table", "tiny", "--format", "csv", *storage)
        table = capsys.readouterr().out
        run("predict", "tiny", study.data / "images", "-o", tmp_path / str(number), "--cache", study.cache, *storage)
        lines = [line for line in capsys.readouterr().out.splitlines() if "Dice" in line]
        outputs.append((table, lines))
        assert sum(line.startswith("p") for line in lines) == IMAGES - 1
    assert outputs[0] == outputs[1]
    for file in sorted((tmp_path / "0").glob("*.png")):
        assert file.read_bytes() == (tmp_path / "1" / file.name).read_bytes()


def test_every_stored_count_excludes_unlabelled_pixels(pair: tuple[Finished, Finished]) -> None:
    study = pair[0]
    checked = set()
    for digest in study.stages:
        scores, images = (next(study.store.stage(digest).glob(f"{kind}-*.parquet")) for kind in ("scores", "images"))
        for row in pq.read_table(scores).to_pylist():
            truth = truth_of(study, row["image"])
            labelled_pixels, number = int((truth != 255).sum()), ("background", *CLASSES).index(f"{row['class']}")
            assert row["tp"] + row["fn"] == sum(row["positives"]) == (truth == number).sum()
            assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == labelled_pixels
            assert sum(row["positives"]) + sum(row["negatives"]) == labelled_pixels
            checked.add(row["image"])
        for row in pq.read_table(images).to_pylist():
            truth = truth_of(study, row["image"])
            assert sum(row["confusion"]) == sum(row["confidence_count"]) == (truth != 255).sum()
            assert np.reshape(row["confusion"], (3, 3)).sum(axis=1).tolist() == [(truth == k).sum() for k in range(3)]
    assert len(checked) == IMAGES - 1
    assert VOID not in checked


def truth_of(study: Finished, name: str) -> NDArray[np.uint8]:
    ids = np.asarray(Image.open(study.data / "masks" / f"{name}.png"))
    return fit_masks(ids, ImageSettings(size=SIZE))


def test_the_dice_of_own_images_excludes_ignored_pixels(
    pair: tuple[Finished, Finished], tmp_path: Path, capsys: Capture
) -> None:
    study = pair[0]
    run("predict", "tiny", study.data / "images", "-o", tmp_path, "--cache", study.cache, "--storage", study.store.root)
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("p")}
    assert VOID not in lines
    for name, line in lines.items():
        predicted, truth = (np.asarray(Image.open(at / f"{name}.png")) for at in (tmp_path, study.data / "masks"))
        labelled = truth != 255
        assert not labelled.all()
        dice = [
            2 * ((predicted == k) & (truth == k)).sum() / (((predicted == k) & labelled).sum() + (truth == k).sum())
            for k in range(3)  # including the background, as set by `metrics.background`
            if (truth == k).any()
        ]
        assert f"as scored at {SIZE} x {SIZE}, {np.mean(dice):.4f} at its own" in line


FAULTS: dict[str, tuple[dict[str, object], str, str]] = {
    "background": ({"ignore": 0}, "data.hospital.ignore: has the id 0, which is the background; ", "ids from 1 to 255"),
    "too large": ({"ignore": [255, 256]}, "data.hospital.ignore: has the id 256", "ids from 1 to 255"),
    "text": ({"ignore": "void"}, "data.hospital.ignore: is void; ", "a whole number or a list"),
    "true": ({"ignore": True}, "data.hospital.ignore: is true; ", "a whole number or a list"),
    "a class": ({"ignore": [2, 255]}, "ignore has the id 2, which is that of the class 'cup'; ", "remove the id"),
}


def test_the_report_outlines_no_prediction_at_unlabelled_pixels(pair: tuple[Finished, Finished]) -> None:
    study = pair[0]
    facts = facts_of(study.plan, study.store)
    extremes = select_extremes(facts, facts.chains)
    outputs, _ = predict_cases(facts, extremes, study.cache)
    assert outputs
    for case, (_, image) in zip(outputs, extremes, strict=True):
        known = truth_of(study, image.image) != 255
        assert known.any()
        assert not known.all()
        assert not (case.predicted & ~known).any()


def refused(document: dict[str, Any], tmp_path: Path, capsys: Capture) -> str:
    file = write_study(document, tmp_path / "study.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(file), "--cache", str(tmp_path / "cache"), "--storage", str(tmp_path / "runs")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(("settings", "message", "remedy"), FAULTS.values(), ids=FAULTS)
def test_ids_that_cannot_be_ignored_are_refused_in_one_line(
    settings: dict[str, object], message: str, remedy: str, tmp_path: Path, capsys: Capture
) -> None:
    data = {"source": "folder", "root": str(write_folder(tmp_path / "mine"))}
    line = refused(base({"data.hospital": data | settings}), tmp_path, capsys)
    assert message in line
    assert remedy in line.partition("; allowed: ")[2]


def test_an_ignored_value_that_is_the_only_foreground_of_masks_is_refused(tmp_path: Path, capsys: Capture) -> None:
    root = write_folder(tmp_path / "mine", overlapping=True)
    data = {"source": "folder", "root": str(root), "ignore": 255}
    line = refused(base({"data.hospital": data}), tmp_path, capsys)
    assert "ignore is 255, and the masks hold no other value above 0; allowed: " in line
    assert "correct `ignore`" in line


def test_void_pixels_are_refused_with_the_remedy(tmp_path: Path, capsys: Capture) -> None:
    root = write_folder(tmp_path / "mine")
    ids = np.array(Image.open(root / "masks" / "ben.png"))
    ids[:3] = 255
    Image.fromarray(ids).save(root / "masks" / "ben.png")
    data = {"source": "folder", "root": str(root)}
    line = refused(base({"data.hospital": data}), tmp_path, capsys)
    assert "masks/ben.png holds the class id 255; allowed: 0 (background) to 2; " in line
    assert "set `ignore: 255`" in line
    write_study(base({"data.hospital": data | {"ignore": 255}}), tmp_path / "study.yaml")
    run("plan", tmp_path / "study.yaml", "--cache", tmp_path / "cache", "--storage", tmp_path / "runs")
