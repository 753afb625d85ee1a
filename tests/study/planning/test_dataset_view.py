"""Data of each stage: the target's own images only from a fold's training part, other data independent of the fold."""

from dataclasses import replace
from pathlib import Path

import pytest

from datasets.settings import SplitSettings
from datasets.source import AnnotationKind
from datasets.sources import PhantomSettings, SiimAcrSettings
from datasets.splits.weak_rows import WeakName
from study.planning.dataset_view import DatasetView, DatasetViewSpec, RowSelection, StageRows
from tests.support.siim_acr import write_siim_acr

FOLDS = 3


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> DatasetView:
    data = PhantomSettings(images=60, patients=30, size=64)
    return DatasetView.open(DatasetViewSpec(data=data, folds=FOLDS, min_cases=2), tmp_path_factory.mktemp("cache"))


def target(
    view: DatasetView, fold: int, labelled: float, annotation_kind: AnnotationKind | None = "masks", seed: int = 0
) -> StageRows:
    return view.stage_rows(
        RowSelection(data="x", annotation_kind=annotation_kind, seed=seed, fold=fold, labelled=labelled)
    )


def rows(reading: StageRows) -> set[int]:
    return {*reading.train, *reading.validation}


def test_a_target_uses_the_labelled_part_of_its_folds_training_images(view: DatasetView) -> None:
    for fold in range(FOLDS):
        split = view.split(fold=fold, seed=0, labelled=0.5)
        reading = target(view, fold, 0.5)
        assert (reading.train, reading.validation) == (split.labelled, split.validation)
        assert rows(reading).isdisjoint(split.test)


@pytest.mark.parametrize("annotation_kind", [None, "labels", "boxes", "centres"])
def test_a_stage_on_the_targets_own_images_uses_all_training_and_no_test_cases(
    annotation_kind: AnnotationKind | None, view: DatasetView
) -> None:
    for fold in range(FOLDS):
        split = view.split(fold=fold, seed=0, labelled=1.0)
        reading = target(view, fold, 1.0, annotation_kind)
        everything = {*split.labelled, *split.validation, *split.unlabelled}
        annotated = {
            row for row in everything if annotation_kind is None or view.index.annotation_digests[annotation_kind][row]
        }
        assert rows(reading) == annotated


def test_such_a_stage_is_the_same_for_every_amount_of_labels(view: DatasetView) -> None:
    draws = [RowSelection(data="x", annotation_kind=None, seed=0, fold=1) for _ in (0.25, 1.0)]
    assert view.stage_rows(draws[0]) is view.stage_rows(draws[1])


def test_smaller_amounts_are_subsets_of_larger_ones(view: DatasetView) -> None:
    small, large = target(view, 0, 0.25), target(view, 0, 0.75)
    assert rows(small) < rows(large)
    assert set(small.validation) <= set(large.validation)


def test_other_data_are_used_completely_and_independent_of_the_fold(view: DatasetView) -> None:
    reading = view.stage_rows(RowSelection(data="x", annotation_kind="boxes", seed=0))
    assert rows(reading) == set(range(60))
    assert set(reading.train).isdisjoint(reading.validation)


def test_a_seed_changes_partition_and_order(view: DatasetView) -> None:
    assert target(view, 0, 0.5, seed=0) != target(view, 0, 0.5, seed=1)


def test_a_split_with_its_own_seed_is_unchanged(tmp_path: Path) -> None:
    data = PhantomSettings.model_validate({"images": 60, "patients": 30, "size": 64, "split": {"seed": 5}})
    fixed = DatasetView.open(DatasetViewSpec(data=data, folds=FOLDS, min_cases=2), tmp_path)
    assert target(fixed, 0, 0.5, seed=0).fingerprint == target(fixed, 0, 0.5, seed=1).fingerprint


def test_the_fingerprint_depends_on_rows_annotation_and_their_part(view: DatasetView) -> None:
    prints = [
        target(view, 0, 0.5).fingerprint,
        target(view, 1, 0.5).fingerprint,
        target(view, 0, 1.0).fingerprint,
        view.stage_rows(RowSelection(data="x", annotation_kind="labels", seed=0)).fingerprint,
        view.stage_rows(RowSelection(data="x", annotation_kind="boxes", seed=0)).fingerprint,
        view.stage_rows(RowSelection(data="x", annotation_kind=None, seed=0)).fingerprint,
    ]
    assert len(set(prints)) == len(prints)


def test_leaking_rows_are_excluded_from_training_and_validation(view: DatasetView) -> None:
    spec = DatasetViewSpec(data=view.spec.data, folds=FOLDS, min_cases=2, excluded=frozenset({3, 4}))
    without = DatasetView(spec=spec, source=view.source, index=view.index)
    draw = RowSelection(data="x", annotation_kind="boxes", seed=0)
    assert rows(without.stage_rows(draw)) == set(range(60)) - {3, 4}
    assert without.stage_rows(draw).fingerprint != view.stage_rows(draw).fingerprint


def test_one_image_differs_from_a_fraction_of_1(view: DatasetView) -> None:
    full_split = view.split(fold=0, seed=0, labelled=1.0)
    single = view.split(fold=0, seed=0, labelled=1)
    assert 1 <= single.labelled_images < full_split.labelled_images


def test_unlabelled_images_of_the_target_are_exactly_those_with_hidden_masks(tmp_path: Path) -> None:
    root = write_siim_acr(tmp_path / "siim", images=16)
    spec = DatasetViewSpec(data=SiimAcrSettings(root=root), folds=2, min_cases=1)
    view = DatasetView.open(spec, tmp_path / "cache")
    assert any(not digest for digest in view.index.annotation_digests["masks"])
    for labelled in (0.25, 1.0):
        draw = RowSelection(
            data="siim", annotation_kind="masks", seed=0, fold=0, labelled=labelled, unlabelled="hidden"
        )
        split = view.split(fold=0, seed=0, labelled=labelled)
        full_split = view.split(fold=0, seed=0, labelled=1.0)
        hidden = {*full_split.labelled, *full_split.validation} - {*split.labelled, *split.validation}
        assert set(view.stage_rows(draw).unlabelled) == hidden


def test_images_without_masks_are_added_if_a_stage_uses_all_unlabelled_images(tmp_path: Path) -> None:
    spec = DatasetViewSpec(
        data=SiimAcrSettings(root=write_siim_acr(tmp_path / "siim", images=16)), folds=2, min_cases=1
    )
    view = DatasetView.open(spec, tmp_path / "cache")
    draw = RowSelection(data="siim", annotation_kind="masks", seed=0, fold=0, labelled=0.5, unlabelled="all")
    hidden = set(view.stage_rows(replace(draw, unlabelled="hidden")).unlabelled)
    split = view.split(fold=0, seed=0, labelled=0.5)
    held_out = {view.index.patients[row] for row in (*split.test, *split.validation)}
    mask_digests = view.index.annotation_digests["masks"]
    never = {
        row for row in range(len(mask_digests)) if not mask_digests[row] and view.index.patients[row] not in held_out
    }
    assert never
    assert set(view.stage_rows(draw).unlabelled) == hidden | never


def test_the_reserve_of_a_search_hides_no_mask(tmp_path: Path) -> None:
    root = write_siim_acr(tmp_path / "siim", images=16)
    spec = DatasetViewSpec(data=SiimAcrSettings(root=root), folds=2, min_cases=1, reserve=0.5)
    draw = RowSelection(data="siim", annotation_kind="masks", seed=0, unlabelled="hidden", reserve=True)
    assert DatasetView.open(spec, tmp_path / "cache").stage_rows(draw).unlabelled == ()


def test_pretraining_data_hold_out_a_fixed_test_set_only_if_there_is_one(tmp_path: Path) -> None:
    selection = RowSelection(data="x", annotation_kind="centres", seed=0)
    opened = {}
    for name, test in (("fixed", {"images": 12}), ("folds", "folds")):
        data = PhantomSettings.model_validate({"images": 60, "patients": 30, "size": 64, "split": {"test": test}})
        opened[name] = DatasetView.open(DatasetViewSpec(data=data, folds=FOLDS, min_cases=2), tmp_path)
    held_out = opened["fixed"].held_out(selection).rows
    assert len(held_out) >= 12
    assert {*held_out} == {*range(60)} - rows(opened["fixed"].stage_rows(selection))
    assert opened["folds"].held_out(selection).rows == ()


def test_a_stage_on_the_targets_own_images_is_tested_on_its_fold(view: DatasetView) -> None:
    for fold in range(FOLDS):
        split = view.split(fold=fold, seed=0, labelled=1.0)
        reading = target(view, fold, 1.0, "centres")
        held_out = view.held_out(RowSelection(data="x", annotation_kind="centres", seed=0, fold=fold)).rows
        assert {*held_out} == {row for row in split.test if view.index.annotation_digests["centres"][row]}
        assert rows(reading).isdisjoint(held_out)


def test_test_images_do_not_change_the_fingerprint_of_training(view: DatasetView) -> None:
    selection = RowSelection(data="x", annotation_kind="centres", seed=0, fold=0)
    test = view.held_out(selection)
    hashes = dict(view.index.annotation_digests)
    hashes["centres"] = [
        f"changed {content}" if row in test.rows else content for row, content in enumerate(hashes["centres"])
    ]
    index = replace(view.index, annotation_digests=hashes)
    changed = DatasetView(spec=view.spec, source=view.source, index=index)
    assert changed.stage_rows(selection).fingerprint == view.stage_rows(selection).fingerprint
    assert changed.held_out(selection).rows == test.rows
    assert changed.held_out(selection).fingerprint != test.fingerprint


def weak(labelled: float, name: WeakName = "class") -> RowSelection:
    return RowSelection(
        data="x", annotation_kind="masks", seed=0, fold=0, labelled=labelled, unlabelled="all", weak=name
    )


def with_index(view: DatasetView, split: SplitSettings | None = None, **columns: object) -> DatasetView:
    """Return a view of the same images with other columns of the index."""
    data = view.spec.data if split is None else view.spec.data.model_copy(update={"split": split})
    return DatasetView(
        spec=replace(view.spec, data=data), source=view.source, index=replace(view.index, **columns),  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("labelled", [0.1, 0.5, 1.0])
def test_images_of_the_validation_set_of_the_publisher_have_no_weak_labels(labelled: float, view: DatasetView) -> None:
    patients = sorted(set(view.index.patients))[:6]
    official = ["validation" if patient in patients else "train" for patient in view.index.patients]
    named = with_index(view, SplitSettings(validation="official"), official=official)
    split, reading = named.split(fold=0, seed=0, labelled=labelled), named.stage_rows(weak(labelled))
    hidden = {row for row in split.unlabelled if official[row] == "train"}
    assert set(reading.unlabelled) == hidden
    assert labelled == 1 or len(hidden) < len(split.unlabelled)


def test_slices_that_do_not_train_have_weak_labels(view: DatasetView) -> None:
    """Which slices show a class is known of their masks alone, which are hidden."""
    excluded = [row % 3 == 0 for row in range(60)]
    part = with_index(view, excluded_from_training=excluded)
    assert not any(excluded[row] for row in part.stage_rows(weak(0.5)).train)
    assert part.stage_rows(weak(0.5)).unlabelled == view.stage_rows(weak(0.5)).unlabelled


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_single_image_with_weak_labels_is_not_used(kept: int, tmp_path: Path) -> None:
    """Every mask is labelled, and some images have labels in place of a mask."""
    view = DatasetView.open(
        DatasetViewSpec(data=PhantomSettings(images=20, patients=20, size=64), folds=2, min_cases=2), tmp_path
    )
    digests = view.index.annotation_digests
    changed = {
        "masks": [digest if row > 2 else "" for row, digest in enumerate(digests["masks"])],
        "labels": ["x" if row < kept else "" for row in range(20)],
    }
    part = with_index(view, annotation_digests=changed, complete={"labels": ["1"] * 20})
    found = part.weak_rows(weak(1.0))
    assert (found.own, found.derived) == ((0, 1) if kept == 2 else (), ())
    assert part.stage_rows(weak(1.0)).unlabelled == found.all
