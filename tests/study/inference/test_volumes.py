"""A study of volumes: planning, scores, prediction, report and model card."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom.sequence import Sequence as DicomSequence

from datasets.decoding.decode import read
from datasets.settings import VolumeSettings
from results.figures import curves
from results.metrics.compute import MetricSettings, measure
from results.report.page import Items
from study.cli.main import main
from study.errors import ConfigError
from study.inference.model_card import _volumes_text
from study.monitoring.plan_summary import summary, summary_text
from study.report.cases import predict_cases, select_extremes
from study.report.data import data_blocks
from study.report.facts import facts_of
from study.training.load_model import open_model
from tests.support.dicom import plane, write_dicom
from tests.support.finished import Finished, finished
from tests.support.tiny import planned, tiny
from tests.support.volumes import ct_volume, write_ct_folder, write_nifti, write_stack

Capture = pytest.CaptureFixture[str]
SHAPE = (40, 32, 6)
CASES = ("ct0", "ct1", "ct2", "ct3")
PATCHES = {
    "image.fit": "patch",
    "image.spacing": 2.0,
    "evaluate": {"size": "native", "threshold": 0.5},
    "metrics": {"tolerance": 3.0},
}


def data_of(root: Path, **keys: object) -> dict[str, object]:
    return {"hospital": {"source": "folder", "root": str(root / "data"), "window": [-160, 240], **keys}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("volumes")
    changes = PATCHES | {"data": data_of(root)}
    return finished(root, write=lambda data: write_ct_folder(data, len(CASES), shape=SHAPE), changes=changes)


def run(study: Finished, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--storage", str(study.store.root), "--cache", str(study.cache)])
    return int(ended.value.code or 0)


def test_a_plan_describes_volumes_and_the_unit_of_distances(study: Finished) -> None:
    text = summary_text(summary(study.plan, study.store, study.cache))
    assert "volumes      hospital: 4 volumes of 6 slices, voxels of 5 x 1.5 x 1.5 mm" in text
    assert "distances    in mm" in text


def test_scores_count_volumes(study: Finished) -> None:
    (digest, *_), (key,) = study.stages, study.store.scorings(study.stages[0])
    tables = pq.read_table(study.store.scores(digest, key)), pq.read_table(study.store.images(digest, key))
    (test,) = measure(*tables, MetricSettings()).images
    assert set(test.images) < set(CASES)
    assert len(test.images) == 2
    first = [row for row in tables[0].to_pylist() if row["lesion_tp"] is not None]
    assert {row["image"].rpartition("/")[2] for row in first} == {"000"}


def test_a_mask_has_the_affine_of_its_volume_and_the_scored_dice(
    study: Finished, tmp_path: Path, capsys: Capture
) -> None:
    images = study.data / "images"
    assert run(study, "predict", "tiny", images, "-o", tmp_path, "--overlay", "--probabilities", "float16") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ct")]
    assert [line.partition(":")[0] for line in lines] == list(CASES)
    for line in lines:
        scored, full_size = (float(text) for text in line.partition("Dice ")[2].replace(" as scored,", "").split()[:2])
        assert scored == pytest.approx(full_size, abs=1e-3)
    image, mask = (nib.load(folder / "ct1.nii.gz") for folder in (images, tmp_path))
    assert np.array_equal(mask.affine, image.affine)  # type: ignore[attr-defined]
    assert mask.shape == image.shape == SHAPE  # type: ignore[attr-defined]
    truth = np.asanyarray(nib.load(study.data / "masks" / "ct1.nii.gz").dataobj)  # type: ignore[attr-defined]
    predicted = np.asanyarray(mask.dataobj)  # type: ignore[attr-defined]
    dice = [2 * ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum()) for k in (1, 2)]
    assert np.mean(dice) == pytest.approx(float(lines[1].partition("scored, ")[2].split()[0]), abs=1e-4)
    assert np.load(tmp_path / "ct1.npz")["probabilities"].shape == (3, 6, 32, 40)
    assert read(tmp_path / "ct1_overlay.png", "image").shape == (32, 40, 3)


def test_volumes_of_another_orientation_get_the_same_mask(study: Finished, tmp_path: Path) -> None:
    values = ct_volume(9, SHAPE)[0]
    masks = []
    for orientation in ("LPS", "PIR"):
        path = write_nifti(tmp_path / orientation / "a.nii", values, orientation=orientation)
        assert run(study, "predict", "tiny", path, "-o", tmp_path / f"masks-{orientation}") == 0
        masks.append(read(tmp_path / f"masks-{orientation}" / "a.nii", "ids", VolumeSettings(axis=2)))
    assert np.array_equal(*masks)
    assert masks[0].any()


def test_a_volume_with_unknown_spacing_is_skipped_if_it_is_needed(
    study: Finished, tmp_path: Path, capsys: Capture
) -> None:
    stack = write_stack(tmp_path / "a.tif", np.zeros((3, 32, 40), np.uint8))
    assert run(study, "predict", "tiny", stack, "-o", tmp_path / "out") == 2
    assert "left out: image.spacing is 2 mm, but the image states no size of its pixels" in capsys.readouterr().err


def write_frames(root: Path) -> None:
    """Write files of four frames that are not stored in the order of their positions, with masks in their order."""
    for number in range(4):
        values, ids = ct_volume(number, (40, 32, 8))
        stored = [1, 6, 3, 5]
        write_dicom(
            root / "images" / f"mr{number}.dcm", (values[..., stored] + 1000).transpose(2, 1, 0).reshape(-1, 40),
            Rows=32, NumberOfFrames=4, PixelSpacing=[1, 1],
            PerFrameFunctionalGroupsSequence=DicomSequence([plane(5 * place) for place in (0, 3, 1, 2)]),
        )  # fmt: skip
        write_stack(root / "masks" / f"mr{number}.tif", ids[..., stored].transpose(2, 1, 0))
    (root / "classes.txt").write_text("organ\nlesion\n")


def test_masks_of_frames_are_in_their_stored_order(tmp_path: Path, capsys: Capture) -> None:
    changes = {"data": {"hospital": {"source": "folder", "root": str(tmp_path / "data")}}, "evaluate.size": "native"}
    study = finished(tmp_path, write=write_frames, changes=changes)
    assert run(study, "predict", "tiny", study.data / "images" / "mr0.dcm", "-o", tmp_path / "out") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mr0"))
    scored, full_size = (float(text) for text in line.partition("Dice ")[2].replace(" as scored,", "").split()[:2])
    assert scored == pytest.approx(full_size, abs=1e-3)
    predicted, truth = (
        read(folder / "mr0.tif", "ids", VolumeSettings()) for folder in (tmp_path / "out", study.data / "masks")
    )
    dice = [2 * ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum()) for k in (1, 2)]
    assert np.mean(dice) == pytest.approx(full_size, abs=1e-4)


def test_a_volume_is_predicted_at_its_own_size(study: Finished, tmp_path: Path, capsys: Capture) -> None:
    assert run(study, "predict", "tiny", study.data / "images", "-o", tmp_path, "--size", "64") == 2
    assert "is a volume, whose masks have its own size; allowed: volumes without --size" in capsys.readouterr().err


def test_a_mask_does_not_replace_its_volume(study: Finished, capsys: Capture) -> None:
    assert run(study, "predict", "tiny", study.data / "images" / "ct0.nii.gz", "-o", study.data / "images") == 2
    assert "would replace the image" in capsys.readouterr().err


def test_the_report_names_volumes_and_shows_a_slice_of_the_best_and_worst(study: Finished) -> None:
    facts = facts_of(study.plan, study.store)
    texts = [str(item) for block in data_blocks(facts) if isinstance(block, Items) for item in block.items]
    assert any("4 volumes of 6 slices" in text and "those of whole volumes" in text for text in texts)
    assert any("tolerance of 3, are in mm" in text for text in texts)
    extremes = select_extremes(facts, facts.chains)
    assert {image.name for _, image in extremes} < set(CASES)
    assert all(image.image.startswith(f"{image.name}/") for _, image in extremes)
    cases, _ = predict_cases(facts, extremes, study.cache)
    assert all("of the volume" in case.title and case.truth.any() for case in cases)


def test_a_network_records_how_volumes_are_sliced(study: Finished) -> None:
    model = open_model(study.store, study.stages[0])
    assert model.volumes == VolumeSettings(window=(-160, 240))
    text = _volumes_text(model.record["data"]["volumes"])
    assert "perpendicular to the axis of the largest spacing; intensities from -160 to 240 become 0 to 255" in text
    assert _volumes_text(None) == ""


def plan_problems(root: Path, changes: dict[str, object]) -> list[str]:
    stages = {"segment": {"task": "segmentation", "data": "hospital", "steps": 2}}
    document = tiny({"data": data_of(root), "stages": stages, "pathways": {"none": ["segment"]}} | changes)
    with pytest.raises(ConfigError) as refused:
        planned(document, root / "cache")
    return [str(problem) for problem in refused.value.problems]


def test_a_spacing_requires_patches_and_files_with_spacing(tmp_path: Path) -> None:
    write_ct_folder(tmp_path / "data", 4, shape=SHAPE)
    assert "without fit: patch" in plan_problems(tmp_path, {"image.spacing": 2.0})[0]
    far = plan_problems(tmp_path, {"image.fit": "patch", "image.spacing": 0.1})
    assert "is 0.1 mm, and pixels of hospital have 1.5 to 1.5 mm; allowed: factors of 0.01 to 10" in far[0]
    both = plan_problems(tmp_path, {"image.fit": "patch", "image.spacing": 2.0, "image.scale": 0.5})
    assert "spacing is 2 and scale 0.5; allowed: one of them" in both[0]
    stack = np.random.default_rng(0).integers(0, 256, (6, 32, 40)).astype(np.uint8)
    write_stack(tmp_path / "data" / "images" / "em.tif", stack)
    write_stack(tmp_path / "data" / "masks" / "em.tif", (stack > 128).astype(np.uint8))
    unknown = plan_problems(tmp_path, {"image.fit": "patch", "image.spacing": 2.0})
    assert "is 2, but 6 of 30 images of hospital state no size of their pixels (em/000)" in unknown[0]


def test_mixed_spacings_cause_a_warning_if_distances_are_measured(tmp_path: Path) -> None:
    write_ct_folder(tmp_path / "data", 4, shape=SHAPE)
    stack = np.random.default_rng(0).integers(0, 256, (6, 32, 40)).astype(np.uint8)
    write_stack(tmp_path / "data" / "images" / "em.tif", stack)
    write_stack(tmp_path / "data" / "masks" / "em.tif", (stack > 128).astype(np.uint8))
    stages = {"segment": {"task": "segmentation", "data": "hospital", "steps": 2}}
    document = tiny({
        "data": data_of(tmp_path), "stages": stages, "pathways": {"none": ["segment"]}, "metrics": {"tolerance": 1.0},
    })  # fmt: skip
    plan = planned(document, tmp_path / "cache")
    (warning,) = [text for text in plan.warnings if "size of their pixels" in text]
    assert "6 of 30 images with masks state no size of their pixels (em/000), so metrics.tolerance" in warning


def test_the_spacing_changes_the_digest_and_its_unit_the_scoring(tmp_path: Path) -> None:
    write_ct_folder(tmp_path / "data", 4, shape=SHAPE)
    stages = {"segment": {"task": "segmentation", "data": "hospital", "steps": 2}}
    common = {
        "data": data_of(tmp_path), "stages": stages, "pathways": {"none": ["segment"]}, "image.fit": "patch",
    }  # fmt: skip
    plain, coarse, fine = (
        planned(tiny(common | changes), tmp_path / "cache").replicates[0].chain[-1]
        for changes in ({}, {"image.spacing": 3.0}, {"image.spacing": 2.0})
    )
    assert len({plain, coarse, fine}) == 3
    override = {"image.spacing": 3.0, "stages.segment.image": {"scale": 1.0}}
    assert planned(tiny(common | override), tmp_path / "cache").replicates[0].chain[-1] == plain


def test_tables_and_axes_of_distances_state_their_unit(study: Finished, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["table", "tiny", "--metric", "hd95", "--aggregation", "case", "--storage", str(study.store.root)])
    assert "hd95 in mm (macro, case, test), mean (95 % interval)" in capsys.readouterr().out
    comparisons = pq.read_table(study.store.study("tiny") / "comparisons.parquet")
    units = {row["metric"]: row["metric_unit"] for row in comparisons.to_pylist()}
    assert {metric for metric, unit in units.items() if unit == "mm"} == {"hd95", "assd"}
    assert set(units.values()) == {"mm", ""}
    figure = curves(comparisons, metric="assd", aggregation="case")
    label = " ".join(figure.axes[0].get_ylabel().split())
    assert label.startswith("Average symmetric surface distance in mm (")
