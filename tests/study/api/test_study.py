"""`from study import Study`: what it returns equals what the command line prints and writes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datasets.errors import DataError
from datasets.settings import ImageSettings
from study import Study
from study.cli.main import main
from study.errors import ConfigError
from study.inference.arrays import spacing_of
from study.monitoring.plan_summary import write_plan
from study.training.load_model import open_model
from tests.support.documents import base, write_study
from tests.support.finished import CLASSES, Finished, finished
from tests.support.importing import sheet_of_data_sets
from tests.support.tiny import tiny
from tests.support.volumes import write_nifti

RECURSIVE: list[object] = []
RECURSIVE.append(RECURSIVE)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study with exclusive classes and its plan."""
    study = finished(tmp_path_factory.mktemp("api"), overlapping=False)
    write_plan(study.plan, study.store, None)
    return study


@pytest.fixture
def study(trained: Finished) -> Study:
    return Study.open(trained.store.root, "tiny", cache=trained.cache)


def command(*arguments: str | Path) -> int:
    """Run a command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def pixels_of(path: Path) -> Any:  # noqa: ANN401
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_package_exports_study_alone_and_imports_nothing_before_it_is_used() -> None:
    code = (
        "import sys, study; print(study.__all__, 'Study' in dir(study), sorted(n for n in sys.modules "
        "if n.startswith('study'))); from study import Study; import study.run; print(Study.__name__, "
        "study.run.__name__, "
        "{'torch', 'ray', 'pandas', 'matplotlib', 'pyarrow'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out == ["['Study'] True ['study']", "Study study.run set()"]


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import study

    with pytest.raises(AttributeError, match="module 'study' has no attribute 'Stduy'"):
        study.Stduy  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("kind", ["path", "text", "mapping"])
def test_a_plan_has_the_facts_of_the_command(kind: str, tmp_path: Path, capsys: Capture) -> None:
    file = write_study(base(), tmp_path / "study.yaml")
    given: Any = {"path": file, "text": str(file), "mapping": base()}[kind]
    plan = Study.plan(given, storage=tmp_path / "runs", cache=tmp_path / "cache")
    words = ["--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    assert command("plan", file, "--json", *words) == 0
    assert plan.summary == json.loads(capsys.readouterr().out)
    assert command("plan", file, *words) == 0
    assert str(plan) == capsys.readouterr().out.rstrip("\n")
    assert (plan.name, plan.arms, plan.cells, plan.replicates, plan.stages_to_run) == ("small", 3, 6, 12, 14)
    assert len(plan.stages) == 14
    assert plan.stages.groupby("stage").size().to_dict() == {"boxes": 1, "classify": 1, "segment": 12}
    assert plan.stages.image_epochs.sum() == plan.summary["image_epochs"]["unique"]
    assert not plan.stages.finished.any()
    assert "<pre>study        small" in plan._repr_html_()
    assert repr(plan) == "StudyPlan('small', 12 replicates, 14 stages to run)"
    assert not (tmp_path / "runs").exists()


def test_overrides_replace_values_of_a_file_or_a_mapping_which_stay_unchanged(tmp_path: Path) -> None:
    document, file = base(), write_study(base(), tmp_path / "study.yaml")
    for seeds in ((0, 1), range(2), np.arange(2)):
        overrides = {"compare.folds": np.int64(4), "name": "other", "compare.seeds": seeds}
        for given in (document, file):
            plan = Study.plan(given, overrides=overrides, cache=tmp_path / "cache")
            assert (plan.name, plan.replicates) == ("other", 48)
    assert document == base()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare.folds": 0}, "compare.folds: "),
        ({"stages.segment.lr": 0.1}, "stages.segment.lr: "),
        ({"image.size": object}, "<class 'object'> is a type; allowed: text, numbers"),
        ({"name.first": "a"}, "'name' holds 'small', which has no keys; allowed:"),
        ({"compare.seeds": RECURSIVE}, "is nested more than 50 levels deep; allowed:"),
    ],
)
def test_problems_of_a_study_are_raised_in_the_lines_of_the_command(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        Study.plan(base(), overrides=changes, cache=tmp_path)
    (line,) = str(error.value).splitlines()
    assert line.startswith("study: ")
    assert message in line


def test_an_unknown_study_is_refused_as_on_the_command_line(trained: Finished) -> None:
    with pytest.raises(ConfigError, match="unknown study 'tny'; allowed: tiny; did you mean tiny"):
        Study.open(trained.store.root, "tny", cache=trained.cache)


def test_tables_are_those_of_the_storage(study: Study, trained: Finished) -> None:
    folder = trained.store.study("tiny")
    for name in ("results", "comparisons", "tests"):
        stored = pq.read_table(folder / f"{name}.parquet").to_pandas()
        pd.testing.assert_frame_equal(getattr(study, name), stored)


@pytest.mark.parametrize("options", [{}, {"metric": "dice", "class_": "blob"}, {"split": "validation"}])
def test_a_table_has_the_rows_of_the_command(
    options: dict[str, Any], study: Study, trained: Finished, capsys: Capture
) -> None:
    words = [word for name, value in options.items() for word in (f"--{name.rstrip('_')}", value)]
    storage = ["--storage", str(trained.store.root)]
    assert command("table", "tiny", *words, "--format", "json", *storage) == 0
    rows = json.loads(capsys.readouterr().out)
    returned = json.loads(study.table(**options).to_json(orient="records", double_precision=15))
    assert len(returned) == len(rows)
    for row, expected in zip(returned, rows, strict=True):
        assert row == pytest.approx(expected)


def test_options_of_a_table_that_the_study_lacks_are_refused(study: Study) -> None:
    for options, message in (
        ({"metric": "dcie"}, "metric is dcie; allowed: mean_iou, dice"),
        ({"search": True}, "has no search"),
        ({"hours": True}, "--hours needs budgets"),
        ({"rows": "pathway"}, r"rows is 'pathway'; allowed: a list of factors; write \['pathway'\]"),
        ({"stage": "segment", "class_": "blob"}, "--class with --stage"),
    ):
        with pytest.raises(ConfigError, match=message):
            study.table(**options)  # type: ignore[arg-type]


def test_the_mean_over_images_is_the_result_per_case(study: Study) -> None:
    images = study.images
    assert set(images["class"]) == {"macro", "weighted", *CLASSES}
    assert len(images) == len(images.groupby(["fold", "split", "image", "class"]))
    case = study.results[study.results.aggregation == "case"].set_index(["fold", "split", "class", "metric"]).value
    for (fold, split, class_), rows in images.groupby(["fold", "split", "class"]):
        assert rows.dice.mean() == pytest.approx(case[fold, split, class_, "dice"])


def test_every_image_is_tested_once_and_has_one_role_in_each_split(study: Study) -> None:
    splits = study.splits()
    assert splits[splits.role == "test"].groupby("image").size().to_dict() == {f"p{number}": 1 for number in range(10)}
    assert (splits.groupby(["image", "fold", "seed", "labelled_fraction"]).size() == 1).all()
    tested = study.images[study.images.split == "test"][["fold", "image"]].drop_duplicates()
    expected = splits[splits.role == "test"][["fold", "image"]]
    assert set(map(tuple, tested.to_numpy())) == set(map(tuple, expected.to_numpy()))


def test_splits_of_changed_data_are_refused(tmp_path: Path) -> None:
    changed = finished(tmp_path, overlapping=False, changes={"stages.segment.steps": 1})
    write_plan(changed.plan, changed.store, None)
    pixels = pixels_of(changed.data / "images" / "p0.png")
    Image.fromarray(255 - pixels).save(changed.data / "images" / "p0.png")
    message = "its data cannot be read as it ran: the data or the platform has changed since the study ran; allowed: "
    with pytest.raises(ConfigError, match=message):
        Study.open(changed.store.root, "tiny", cache=changed.cache).splits()


def test_the_history_has_every_epoch_of_every_finished_stage(study: Study, trained: Finished) -> None:
    history = study.history()
    for digest in trained.stages:
        stored = pq.read_table(trained.store.file(digest, "history.parquet")).to_pandas()
        part = history[history.digest == digest].reset_index(drop=True)
        pd.testing.assert_frame_equal(part[list(stored)], stored, check_dtype=False)
        assert set(part.stage) == {"segment"}


def test_an_array_is_predicted_as_the_command_predicts_the_file(
    study: Study, trained: Finished, tmp_path: Path
) -> None:
    file = trained.data / "images" / "p0.png"
    storage = ["--storage", trained.store.root, "--cache", trained.cache]
    assert command("predict", "tiny", file, "-o", tmp_path, "--ensemble", "--probabilities", "float32", *storage) == 0
    prediction = study.predict(pixels_of(file))
    with np.load(tmp_path / "p0.npz") as arrays:
        np.testing.assert_array_equal(prediction.probabilities, arrays["probabilities"])
        assert prediction.channels == tuple(arrays["names"])
    np.testing.assert_array_equal(prediction.labels, pixels_of(tmp_path / "p0.png"))
    assert prediction.classes == tuple(CLASSES)
    assert (prediction.networks, prediction.out_of_fold) == (tuple(trained.stages), False)
    assert prediction.overlay().shape == (*prediction.labels.shape, 3)


def test_files_are_predicted_out_of_fold_as_by_the_command(study: Study, trained: Finished, tmp_path: Path) -> None:
    folder = trained.data / "images"
    assert command("predict", "tiny", folder, "-o", tmp_path, "--storage", trained.store.root) == 0
    record = json.loads((tmp_path / "predictions.json").read_text())
    predictions = study.predict([folder])
    assert [prediction.file for prediction in predictions] == sorted(folder.iterdir())
    for prediction in predictions:
        assert prediction.file is not None
        np.testing.assert_array_equal(prediction.labels, pixels_of(tmp_path / f"{prediction.file.stem}.png"))
        networks = record["networks"][prediction.file.stem]
        assert (list(prediction.networks), prediction.out_of_fold) == (networks["stages"], networks["out_of_fold"])


def test_a_volume_is_predicted_slice_by_slice(study: Study, trained: Finished, tmp_path: Path) -> None:
    slices = np.stack([pixels_of(trained.data / "images" / f"p{number}.png") for number in (1, 3, 5)])
    write_nifti(tmp_path / "volume.nii", slices)
    storage = ["--storage", trained.store.root, "--cache", trained.cache]
    assert (
        command(
            "predict", "tiny", tmp_path / "volume.nii", "-o", tmp_path / "out", "--probabilities", "float32", *storage
        )
        == 0
    )
    prediction = study.predict(tmp_path / "volume.nii")
    with np.load(tmp_path / "out" / "volume.npz") as arrays:
        np.testing.assert_array_equal(prediction.probabilities, arrays["probabilities"])
    assert prediction.labels.shape == prediction.probabilities.shape[1:]


def test_other_types_of_arrays_are_scaled_from_their_range(study: Study, trained: Finished) -> None:
    pixels = pixels_of(trained.data / "images" / "p0.png")
    stretched = np.rint((pixels - pixels.min()) * (255 / (pixels.max() - pixels.min()))).astype(np.uint8)
    expected = study.predict(stretched).probabilities
    for array in (pixels / 255, pixels.astype(np.uint16) * 16, pixels.astype(np.float32) - 1000):
        np.testing.assert_allclose(study.predict(array).probabilities, expected, atol=0.02)


def test_images_of_pillow_and_tensors_are_predicted_as_their_arrays(study: Study, trained: Finished) -> None:
    with Image.open(trained.data / "images" / "p0.png") as image:
        pixels = np.asarray(image)
        expected = study.predict(pixels).probabilities
        for other in (
            image,
            torch.from_numpy(pixels.copy()),
            pixels[..., None],
            image.convert("RGBA"),
            image.convert("P"),
        ):
            prediction = study.predict(other)  # type: ignore[call-overload]
            np.testing.assert_array_equal(prediction.probabilities, expected)
            assert prediction.overlay().shape == (*pixels.shape, 3)


def test_a_prediction_keeps_its_pixels_if_the_array_changes(study: Study) -> None:
    image = np.full((9, 9), 7, np.uint8)
    prediction = study.predict(image)
    image[:] = 0
    assert (prediction.pixels == 7).all()


def test_a_changed_table_leaves_the_next_one_as_it_was(study: Study) -> None:
    for name in ("results", "comparisons", "tests", "images"):
        table = getattr(study, name)
        table["split"] = "changed"
        assert "changed" not in set(getattr(study, name).split)


def test_numbers_that_no_cell_has_are_floats(study: Study) -> None:
    table = study.table()
    for name in ("p_better", "labels_saved"):
        assert table[name].isna().all()
        assert table[name].dtype == np.float64


def test_a_study_is_read_where_it_was_opened(
    trained: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.store.root.parent)
    study = Study.open(trained.store.root.name, "tiny", cache=trained.cache.name)
    monkeypatch.chdir(tmp_path)
    assert not study.results.empty
    assert study.predict([trained.data / "images" / "p0.png"])[0].out_of_fold
    assert list(tmp_path.iterdir()) == []


def test_networks_are_kept_for_the_next_prediction_until_refresh(tmp_path: Path) -> None:
    kept = finished(tmp_path, overlapping=False, changes={"stages.segment.steps": 1})
    study, image = Study.open(kept.store.root, "tiny", cache=kept.cache), np.zeros((9, 9), np.uint8)
    study.predict(image)
    for digest in kept.stages:
        (kept.store.stage(digest) / "weights.safetensors").unlink()
    study.predict(image)
    study.refresh()
    with pytest.raises(ConfigError, match="allowed: a stage with its weights"):
        study.predict(image)


def test_a_warning_says_if_the_images_of_the_study_cannot_be_recognised(tmp_path: Path) -> None:
    moved = finished(tmp_path, overlapping=False, changes={"stages.segment.steps": 1})
    folder = moved.data.rename(tmp_path / "elsewhere")
    study = Study.open(moved.store.root, "tiny", cache=moved.cache)
    with pytest.warns(UserWarning, match="the study's own images cannot be recognised") as caught:
        (prediction,) = study.predict([folder / "images" / "p0.png"])
    assert prediction.out_of_fold is None
    assert caught[0].filename == __file__


@pytest.mark.parametrize("spacing", [(), (1,), (1, 0), (1, float("nan")), "ab", (1, 2, 3)])
def test_spacing_is_two_numbers_above_0(spacing: Any) -> None:  # noqa: ANN401 - also what is refused
    with pytest.raises(DataError, match=r"image.spacing 1 mm; allowed: height and width of a pixel in mm"):
        spacing_of(spacing, ImageSettings(fit="patch", spacing=1.0))
    assert spacing_of(np.array([0.5, 2]), ImageSettings(fit="patch", spacing=1.0)) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Study.plan(None), "a study file is a NoneType; allowed: a path or a mapping"),  # type: ignore[arg-type]
        (lambda: Study.plan({}, overrides="a=b"), "overrides is 'a=b'; allowed: a mapping"),  # type: ignore[arg-type]
        (lambda: Study.plan({}, overrides={3: 3}), "overrides is {3: 3}; allowed: a mapping"),  # type: ignore[dict-item]
        (lambda: Study.open(None, "a"), "storage is None; allowed: a folder"),  # type: ignore[arg-type]
        (lambda: Study.open("runs", 3), "name is 3; allowed: the name of a study"),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_other_types_are_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^Study: {message}") as error:
        call()
    assert "\n" not in str(error.value)


def test_overlapping_classes_have_masks_and_no_labels(overlapping: Finished) -> None:
    study = Study.open(overlapping.store.root, "tiny", cache=overlapping.cache)
    prediction = study.predict(pixels_of(overlapping.data / "images" / "p1.png"))
    assert prediction.channels == prediction.classes == tuple(CLASSES)
    np.testing.assert_array_equal(prediction.masks, prediction.probabilities >= 0.4)
    with pytest.raises(ConfigError, match="may overlap, so that a pixel has no single label; allowed: "):
        _ = prediction.labels


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "the list of images is empty; allowed: at least one"),
        (["none.png"], {}, "none.png cannot be read"),
        ("missing", {}, "missing cannot be read"),
        (".", {}, r". is a folder; allowed: one image, or a list; write \['.'\]"),
        ([3], {}, "the image is a int; allowed: arrays of numpy, images of Pillow, tensors on the CPU"),
        (None, {}, "the image is a NoneType; allowed: arrays of numpy"),
        ("", {}, "the path of an image is empty; allowed: a file or folder"),
        ("a\0b", {}, "cannot be read .embedded null byte"),
        ("a" * 5000, {}, "cannot be read .File name too long"),
        (np.zeros((9, 9), np.uint8), {"threshold": "0.5"}, "threshold is '0.5'; allowed: 0 to 1"),
        (np.zeros((9, 9), np.uint8), {"arm": "pathway=none"}, "arm is 'pathway=none'; allowed: a mapping"),
        (np.zeros((9, 9), np.uint8), {"fold": "0"}, "fold is '0'; allowed: a whole number"),
        (np.zeros((9, 9), np.uint8), {"spacing": (1, 1)}, "spacing is .1, 1., and the study sets no image.spacing"),
        (np.zeros((4, 5, 2), np.uint8), {}, "the image has 2 channels; allowed: 1 or 3"),
        (np.zeros(7, np.uint8), {}, r"the image has the shape \(7,\); allowed: \(height, width\)"),
        (np.zeros((0, 7), np.uint8), {}, r"the image has the shape \(0, 7\); allowed:"),
        (np.array([["a"]]), {}, "the image has the type <U1; allowed: whole numbers or floats"),
        (np.zeros((9, 9), np.uint8), {"threshold": 2}, "threshold is 2; allowed: 0 to 1"),
        (np.zeros((9, 9), np.uint8), {"tile": 3}, "--tile: is 3; allowed: auto, or 16 to"),
        (np.zeros((9, 9), np.uint8), {"arm": {"pathway": "a"}}, "--arm pathway=a: unknown pathway 'a'; allowed: none"),
        (np.zeros((9, 9), np.uint8), {"fold": 7}, "no replicate has fold 7; allowed: fold 0 seed 0, fold 1 seed 0"),
    ],
)  # fmt: skip
def test_invalid_input_of_predict_is_one_line(
    images: Any,  # noqa: ANN401 - also what is refused
    options: dict[str, Any],
    message: str,
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        study.predict(images, **options)
    assert "\n" not in str(error.value)


def test_the_model_prepares_images_and_returns_the_probabilities_of_its_stage(study: Study, trained: Finished) -> None:
    module = study.model(fold=1)
    assert isinstance(module, torch.nn.Module)
    assert not module.training
    assert (module.metadata["digest"], module.threshold, module.shape) == (trained.stages[1], 0.4, (32, 32))
    pixels = pixels_of(trained.data / "images" / "p1.png")
    with torch.no_grad():
        probabilities = module(module.prepare(pixels))
    model = open_model(trained.store, trained.stages[1])
    assert probabilities.shape == (1, 3, 32, 32)
    expected = study.predict(pixels, fold=1, tta=False).probabilities
    inner = probabilities[:, :, 4:28]  # 64 x 48 pixels in a letterbox of 32 x 32
    resized = torch.nn.functional.interpolate(inner, expected.shape[1:], mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resized[0], expected, atol=1e-5)
    assert module.channels == ("background", *model.outputs.names)
    assert module.masks(probabilities).shape == (1, 2, 32, 32)


def test_the_model_is_the_one_with_the_best_validation_score(study: Study, trained: Finished) -> None:
    best = max(trained.stages, key=lambda digest: trained.store.record(digest)["best_score"])
    assert study.model().metadata["digest"] == best


def test_the_report_and_its_figures_are_made(study: Study, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    assert study.report(tmp_path / "report.html") == tmp_path / "report.html"
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert {"learning_curve_mean_iou", "learning_curve_dice", "classes", "training", "cases"} <= study.figures.keys()
    assert all(isinstance(figure, Figure) for figure in study.figures.values())
    with pytest.raises(ConfigError, match=r"is a folder; allowed: a file"):
        study.report(tmp_path)


def test_notebooks_show_the_name_the_state_and_the_table(study: Study) -> None:
    shown = study._repr_html_()
    assert "<strong>tiny</strong>: finished" in shown
    assert "<table>" in shown
    assert "labelled_fraction" in shown


def test_notebooks_show_what_is_wrong_with_a_damaged_study(trained: Finished, tmp_path: Path) -> None:
    shutil.copytree(trained.store.root, tmp_path / "runs")
    (tmp_path / "runs" / "studies" / "tiny" / "plan.json").write_text("{")
    assert "is not the JSON that was written" in Study.open(tmp_path / "runs", "tiny")._repr_html_()


def test_a_study_without_results_says_what_to_do(trained: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "early"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(json.dumps(tiny({"name": "early"})), encoding="utf-8")
    early = Study.open(tmp_path, "early", cache=trained.cache)
    assert early.status["state"] == "planned"
    assert "has no comparisons yet; allowed: a study that has run" in early._repr_html_()
    assert early.history().empty
    for attribute in ("results", "comparisons", "images"):
        with pytest.raises(ConfigError, match="has no results yet; allowed: a study that has run; run it first"):
            getattr(early, attribute)


def test_imported_results_have_tables_and_nothing_to_predict_with(tmp_path: Path, capsys: Capture) -> None:
    sheet = sheet_of_data_sets(tmp_path / "sheet.csv", sets=4, encoders=2, seeds=2)
    assert command("import", sheet, "--name", "sheet", "--storage", tmp_path / "runs", "--design", "fixed") in (0, 2)
    capsys.readouterr()
    study = Study.open(tmp_path / "runs", "sheet")
    assert study.status == {"study": "sheet", "state": "imported"}
    assert set(study.table(metric="dice")["metric"]) == {"dice"}
    for method in (study.splits, study.history, lambda: study.predict(np.zeros((9, 9), np.uint8))):
        with pytest.raises(ConfigError, match="has imported results under this name"):
            method()


@pytest.mark.cluster
def test_a_study_runs_from_a_mapping_and_is_resumed(tmp_path: Path, capsys: Capture) -> None:
    document = tiny({"stages.classify.epochs": 1, "stages.segment.steps": 2})
    places = {"storage": tmp_path / "runs", "cache": tmp_path / "cache"}
    study = Study.run(document, **places)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line != "reading study and its data") == "starting Ray on this machine"
    (first,) = [number for number, line in enumerate(lines) if line.endswith(": the first stage has started")]
    (last,) = [number for number, line in enumerate(lines) if line.startswith("[5/5]")]
    assert lines.index("starting Ray on this machine") < first < last
    assert study.status["state"] == "finished"
    assert study.failures.empty
    assert len(study.results["digest"].unique()) == 4
    again = Study.run(document, quiet=True, **places)  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
    pd.testing.assert_frame_equal(again.results, study.results)
