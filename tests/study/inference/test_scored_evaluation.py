"""Prediction repeats the test-time augmentation and the post-processing of the scores."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from datasets.settings import ImageSettings
from datasets.sources import FolderSettings, open_source
from datasets.targets import fit_masks
from results.postprocessing.rules import ClassRule, EmptyMaskRule
from results.schema import EVALUATION
from study.cli.main import main
from study.inference.export import metadata
from study.inference.predictor import Predictor
from study.inference.scored_evaluation import ScoredEvaluation
from study.inference.select import choose
from study.planning.pending import pending_stages
from study.training.load_model import open_model
from tests.support.finished import CLASSES, IMAGES, Finished, finished
from tests.support.tiny import planned

SIZE, THRESHOLD = 40, 0.4
RULES = {"empty": {"top": 0.7, "area": 12, "bottom": 0.3}, "smallest_area": 6, "largest_component": True}


@pytest.fixture(scope="module", params=["overlapping", "exclusive"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    overlapping = request.param == "overlapping"
    postprocess = RULES if overlapping else {"smallest_area": "auto", "largest_component": "auto"}
    evaluate = {"size": SIZE, "threshold": THRESHOLD, "tta": ["flip", "rotate"], "postprocess": postprocess}
    root = tmp_path_factory.mktemp(request.param)
    return finished(root, overlapping=overlapping, changes={"evaluate": evaluate, "metrics.tolerance": 2.0})


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)


def predict(study: Finished, *words: str | Path) -> None:
    places = ["--storage", study.store.root, "--cache", study.cache]
    assert run("predict", "tiny", study.data / "images", *words, *places) == 0


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def is_overlapping(study: Finished) -> bool:
    return (study.data / "masks" / CLASSES[0]).is_dir()


def masks_of(study: Finished, output: Path, name: str) -> list[NDArray[np.bool_]]:
    if is_overlapping(study):
        return [pixels_of(output / f"{name}_{class_.replace(' ', '_')}.png") > 0 for class_ in CLASSES]
    return [pixels_of(output / f"{name}.png") == number for number in (1, 2)]


def scores_of(study: Finished, digest: str) -> Path:
    (file,) = study.store.stage(digest).glob("scores-*.parquet")
    return file


def test_masks_at_the_evaluated_size_have_the_counts_of_the_scores(study: Finished, tmp_path: Path) -> None:
    predict(study, "-o", tmp_path, "--size", str(SIZE))
    source = open_source(FolderSettings(root=study.data, classes=tuple(CLASSES)))
    index = source.index(study.cache)
    compared, changed = 0, 0
    for digest in study.stages:
        table = pq.read_table(scores_of(study, digest)).to_pylist()
        before = {(row["image"], row["class"]): row for row in table if row["split"] == "test"}
        for row in table:
            if row["split"] != "test_postprocessed" or row["class"] not in CLASSES:
                continue
            truth = fit_masks(source.masks(index.ids.index(row["image"])), ImageSettings(size=SIZE))
            number = CLASSES.index(row["class"])
            true = truth[number] > 0 if is_overlapping(study) else truth == number + 1
            mask = masks_of(study, tmp_path, row["image"])[number]
            counts = (mask & true).sum(), (mask & ~true).sum(), (true & ~mask).sum()
            assert counts == (row["tp"], row["fp"], row["fn"])
            usual = before[row["image"], row["class"]]
            compared, changed = compared + 1, changed + (counts != (usual["tp"], usual["fp"], usual["fn"]))
    assert compared == IMAGES * len(CLASSES)
    assert changed


def test_probabilities_are_means_over_the_views(study: Finished, tmp_path: Path) -> None:
    if not is_overlapping(study):
        pytest.skip("one kind of classes is enough")
    models = [open_model(study.store, digest) for digest in study.stages]
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)
    views = [np.rot90(part, turns) for part in (pixels, pixels[:, ::-1]) for turns in range(4)]
    undone = []
    for number, view in enumerate(views):
        output = Predictor(models).predict_input(np.ascontiguousarray(view)).numpy()
        turned = np.rot90(output, -(number % 4), axes=(1, 2))
        undone.append(turned[:, :, ::-1] if number >= 4 else turned)
    actual = Predictor(models, [("flip", "rotate")] * len(models)).predict_input(pixels)
    # Normalisation of contrast precedes the views, and does not depend on the orientation.
    torch.testing.assert_close(actual, torch.from_numpy(np.mean(undone, axis=0)), atol=1e-5, rtol=0)


def test_options_disable_both(study: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(study, "-o", tmp_path / "with", "--probabilities", "float32")
    assert "test-time augmentation flip and rotate, post-processed" in capsys.readouterr().out
    predict(study, "-o", tmp_path / "without", "--probabilities", "float32", "--no-tta", "--no-postprocess")
    assert "post-processed" not in capsys.readouterr().out
    records = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("with", "without")]
    assert [record["tta"] for record in records] == [["flip", "rotate"], []]
    assert ["postprocess" in record for record in records] == [True, False]
    assert records[0]["postprocess"]["evaluated_size"] == SIZE
    with np.load(tmp_path / "without" / "p0.npz") as arrays:
        probabilities = arrays["probabilities"]
    expected = probabilities >= THRESHOLD if is_overlapping(study) else probabilities.argmax(axis=0) == [[[1]], [[2]]]
    np.testing.assert_array_equal(masks_of(study, tmp_path / "without", "p0"), expected)


def test_the_reported_dice_is_that_after_post_processing(study: Finished, tmp_path: Path) -> None:
    predict(study, "-o", tmp_path)
    stated = json.loads((tmp_path / "predictions.json").read_text())["dice"]
    assert len(stated) == IMAGES
    for digest in study.stages:
        rows = pq.read_table(scores_of(study, digest)).to_pylist()
        for image in {row["image"] for row in rows if row["split"] == "test_postprocessed"}:
            chosen = [
                row for row in rows
                if (row["image"], row["split"]) == (image, "test_postprocessed") and row["class"] in CLASSES
            ]  # fmt: skip
            values = [
                2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"]) for row in chosen if row["tp"] + row["fn"]
            ]
            assert stated[image]["scored"] == pytest.approx(np.mean(values))


def test_exports_record_both(study: Finished) -> None:
    choice = choose(study.store, "tiny")
    model = open_model(study.store, study.stages[0])
    stated = metadata([model], choice, ScoredEvaluation.read(study.store, choice))
    record = json.loads(pq.read_schema(scores_of(study, study.stages[0])).metadata[EVALUATION])
    assert (stated["tta"], stated["postprocess"], stated["evaluated_size"]) == (
        ["flip", "rotate"], record["postprocess"], SIZE,
    )  # fmt: skip


def test_changed_settings_score_finished_stages_again_without_training(study: Finished, tmp_path: Path) -> None:
    document = json.loads(json.dumps(study.plan.spec.model_dump(mode="json", exclude_unset=True, by_alias=True)))
    for key, value in (("tta", ["flip"]), ("postprocess", {"smallest_area": 9})):
        changed = {**document, "evaluate": {**document["evaluate"], key: value}}
        pending = pending_stages(planned(changed, study.cache), study.store)
        assert set(pending.stages) == set(pending.scored) == set(study.stages)


def test_rules_of_networks_without_scores_are_ignored() -> None:
    rule = ClassRule(empty=EmptyMaskRule(top=0.8, area=10, bottom=0.4), smallest_area=4)
    scored = ScoredEvaluation(size=(20, 40), rules={"a": {"x": rule}})
    assert scored.combined(["b"], ["x"], None) == ()
    assert scored.combined(["a", "b"], ["x"], None) == (rule,)
    (replaced,) = scored.combined(["a"], ["x"], 0.9)
    assert replaced.empty == EmptyMaskRule(top=0.9, area=10, bottom=0.9)
    assert scored.tta_of("a") == ()
    assert scored.area_factor((5, 5), (40, 40)) == 2.0
    assert ScoredEvaluation(rules={}).area_factor((10, 20), (20, 20)) == 2.0


def test_an_exported_ensemble_records_the_combined_rule(study: Finished) -> None:
    choice = choose(study.store, "tiny")
    models = [open_model(study.store, digest) for digest in study.stages]
    rules = {
        digest: {name: ClassRule(smallest_area=area) for name in CLASSES}
        for digest, area in zip(study.stages, (10, 20), strict=True)
    }
    stated = metadata(models, choice, ScoredEvaluation(size=SIZE, rules=rules))
    assert stated["postprocess"] == {name: ClassRule(smallest_area=15).record() for name in CLASSES}
