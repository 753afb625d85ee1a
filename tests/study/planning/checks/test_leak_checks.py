"""Pretraining cases that are also cases of the target: refused, excluded or reported, for every stage."""

import shutil
from pathlib import Path

import cv2
import pytest

from datasets.decoding.decode import read
from study.errors import ConfigError
from study.monitoring.plan_summary import summary
from study.planning.graph import Plan
from study.store.store import Store
from tests.support.documents import Document, base, by_stage, planned
from tests.support.pictures import picture, save
from tests.support.volumes import SHAPE, ct_volume, write_nifti

CLEAN = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7")


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Eight images with masks: the target."""
    root = tmp_path / "hospital"
    for number in range(8):
        save(picture(number), root / "images" / f"h{number}.png")
        save(picture(number) // 128, root / "masks" / f"h{number}.png")
    return root


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Eight other images with labels."""
    root = tmp_path / "clinic"
    for number, name in enumerate(CLEAN):
        save(picture(100 + number), root / "images" / f"{name}.png")
    _label(root)
    return root


def _label(root: Path) -> None:
    stems = sorted(path.stem for path in (root / "images").iterdir())
    lines = [f"{stem},{number % 2}" for number, stem in enumerate(stems)]
    (root / "labels.csv").write_text("\n".join(["image,ill", *lines]) + "\n")


def plant(clinic: Path, hospital: Path) -> None:
    """Copy one of the target's files, and add another one at another size as JPEG."""
    shutil.copy(hospital / "images" / "h1.png", clinic / "images" / "copied.png")
    pixels = read(hospital / "images" / "h2.png", "image")
    larger = cv2.resize(pixels, (160, 120), interpolation=cv2.INTER_CUBIC)
    save(larger.astype("uint8"), clinic / "images" / "encoded.jpg", quality=80)
    _label(clinic)


def study(clinic: Path, hospital: Path, leaks: str = "refuse") -> Document:
    return base({
        "data": {
            "clinic": {"source": "folder", "root": str(clinic)},
            "hospital": {"source": "folder", "root": str(hospital)},
        },
        "stages.boxes": {"task": "reconstruction", "data": "clinic", "epochs": 1},
        "pathways": {"none": ["segment"], "one": ["classify", "segment"], "two": ["boxes", "classify", "segment"]},
        "leaks": leaks,
    })  # fmt: skip


def leaks_of(plan: Plan, tmp_path: Path) -> list[tuple[str, str, int]]:
    leaks = summary(plan, Store(tmp_path / "runs"), tmp_path)["leaks"]
    return [(leak["stage"], leak["kind"], leak["images"]) for leak in leaks]


def test_data_without_common_cases_are_not_a_leak(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    assert leaks_of(planned(study(clinic, hospital), tmp_path / "cache"), tmp_path) == []


def test_copied_and_encoded_images_are_refused_with_their_names(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    plant(clinic, hospital)
    with pytest.raises(ConfigError) as refused:
        planned(study(clinic, hospital), tmp_path / "cache")
    assert str(refused.value).splitlines() == [
        f"study.yaml: data.clinic: 1 image shares a {kind} with target hospital ({name}); allowed: none; "
        "leaks: exclude leaves them out, leaks: report only reports them"
        for kind, name in (("file", "copied"), ("picture", "encoded"))
    ]


def test_reported_leaks_are_listed_for_every_stage_that_uses_them(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    plant(clinic, hospital)
    plan = planned(study(clinic, hospital, "report"), tmp_path / "cache")
    assert leaks_of(plan, tmp_path) == [
        ("boxes", "file", 1), ("classify", "file", 1), ("boxes", "picture", 1), ("classify", "picture", 1),
    ]  # fmt: skip
    assert sum("shares a" in warning for warning in plan.warnings) == 2
    assert summary(plan, Store(tmp_path), tmp_path)["excluded"] == []


def test_excluded_images_are_not_read(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    plant(clinic, hospital)
    plan = planned(study(clinic, hospital, "exclude"), tmp_path / "cache")
    view = plan.views["clinic"]
    readings = [view.stage_rows(node.selection) for node in plan.nodes.values() if node.selection.data == "clinic"]
    read_ids = {view.index.ids[row] for reading in readings for row in (*reading.train, *reading.validation)}
    assert read_ids == set(CLEAN)
    assert summary(plan, Store(tmp_path), tmp_path)["excluded"] == [{"data": "clinic", "images": ["copied", "encoded"]}]


def test_excluding_images_gives_the_same_stages_as_data_without_them(
    clinic: Path, hospital: Path, tmp_path: Path
) -> None:
    before = planned(study(clinic, hospital, "exclude"), tmp_path / "cache")
    labels = (clinic / "labels.csv").read_text()
    plant(clinic, hospital)
    lines_by_image = {line.partition(",")[0]: line for line in labels.splitlines()}
    lines = (clinic / "labels.csv").read_text().splitlines()
    lines = [lines_by_image.get(line.partition(",")[0], line) for line in lines]
    (clinic / "labels.csv").write_text("\n".join(lines) + "\n")
    after = planned(study(clinic, hospital, "exclude"), tmp_path / "cache")
    assert by_stage(before) == by_stage(after)


def test_reported_leaks_are_used_for_training(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    plant(clinic, hospital)
    reported = planned(study(clinic, hospital, "report"), tmp_path / "cache")
    excluded = planned(study(clinic, hospital, "exclude"), tmp_path / "cache")
    assert by_stage(reported)["classify"].isdisjoint(by_stage(excluded)["classify"])


def test_a_shared_patient_is_a_leak_even_with_different_images(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    document = study(clinic, hospital)
    document["data"]["clinic"] = document["data"]["hospital"] = {"source": "phantom", "images": 24, "patients": 12}
    with pytest.raises(ConfigError, match="24 images share a patient with target hospital"):
        planned(document, tmp_path / "cache")


def test_a_stage_on_the_targets_own_data_is_not_a_leak(clinic: Path, hospital: Path, tmp_path: Path) -> None:
    document = study(clinic, hospital)
    document["stages"]["boxes"]["data"] = "hospital"
    document["pathways"] = {"none": ["segment"], "own": ["boxes", "segment"]}
    plan = planned(document, tmp_path / "cache")
    assert leaks_of(plan, tmp_path) == []
    assert len(by_stage(plan)["boxes"]) == 2  # one per fold, for all fractions


def volumes(root: Path, window: list[float] | None, suffix: str, first: int) -> dict[str, object]:
    """Write volumes with masks, of which the first one is the same for every folder, and return their settings."""
    for number in (0, *range(first, first + 4)):
        values, ids = ct_volume(number)
        write_nifti(root / "images" / f"v{number}{suffix}", values)
        write_nifti(root / "masks" / f"v{number}{suffix}", ids)
    return {"source": "folder", "root": str(root)} | ({"window": window} if window else {})


@pytest.mark.parametrize(("suffix", "kind"), [(".nii.gz", "file"), (".nii", "picture")])
def test_a_volume_with_another_window_or_compression_is_excluded_with_all_of_its_slices(
    tmp_path: Path, suffix: str, kind: str
) -> None:
    target = volumes(tmp_path / "hospital", None, ".nii.gz", 1)
    other = volumes(tmp_path / "clinic", [-200.0, 200.0] if kind == "file" else None, suffix, 10)
    if kind == "file":  # compressed at another time
        shutil.copy(tmp_path / "hospital" / "images" / "v0.nii.gz", tmp_path / "clinic" / "images" / "v0.nii.gz")
    document = base({
        "data": {"clinic": other, "hospital": target}, "leaks": "exclude", "image.channels": 1,
        "stages": {
            "encode": {"task": "reconstruction", "data": "clinic", "epochs": 1},
            "segment": {"task": "segmentation", "data": "hospital", "epochs": 1},
        },
        "pathways": {"none": ["segment"], "own": ["encode", "segment"]},
    })  # fmt: skip
    plan = planned(document, tmp_path)
    slices = SHAPE[2]
    assert leaks_of(plan, tmp_path) == [("encode", kind, slices)]
    view = plan.views["clinic"]
    assert {view.index.ids[row].split("/")[0] for row in view.spec.excluded} == {"v0"}
    assert len(view.spec.excluded) == slices
