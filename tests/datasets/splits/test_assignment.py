import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import DataError
from datasets.settings import FileList, SplitSettings, ValidationShare
from datasets.source import Index
from datasets.splits.assignment import (
    Split,
    fingerprint,
    patient_order,
    pretraining_split,
    reserve_split,
    reserved,
    target_split,
)
from datasets.splits.patients import draw_images, members_of

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)


def an_index(
    patients: list[str],
    categories: list[str] | None = None,
    *,
    official: list[str] | None = None,
    masks: list[str] | None = None,
    faults: list[str] | None = None,
) -> Index:
    count = len(patients)
    content = [f"{row:032x}" for row in range(count)]
    return Index(
        ids=[f"i{row:06d}" for row in range(count)],
        patients=patients,
        categories=categories or ["a"] * count,
        official=official or [""] * count,
        content=content,
        thumbnails=[""] * count,
        faults=faults or [""] * count,
        annotation_digests={"masks": masks or content},
        classes=("lung",),
        overlapping=False,
        labels=(),
    )


def a_cohort(count: int = 100, seed: int = 0) -> Index:
    """Patients with one to four images in three categories of unequal size."""
    draw = random.Random(seed)
    patients: list[str] = []
    categories: list[str] = []
    while len(patients) < count:
        category = draw.choices("abc", (6, 3, 1))[0]
        images = min(draw.choice((1, 1, 1, 2, 4)), count - len(patients))
        patients += [f"c/p{len(patients)}"] * images
        categories += [category] * images
    return an_index(patients, categories)


def split_of(index: Index, settings: SplitSettings | None = None, **changes: object) -> Split:
    arguments: dict[str, Any] = {"folds": 5, "fold": 0, "seed": 0, "labelled": 1.0, "min_cases": 1} | changes
    return target_split(index, settings or SplitSettings(), annotation_kind="masks", **arguments)


def patients_of(index: Index, rows: tuple[int, ...]) -> set[str]:
    return {index.patients[row] for row in rows}


def fixed(count: int, **changes: object) -> SplitSettings:
    return SplitSettings.model_validate({"test": {"images": count}, **changes})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("settings", [SplitSettings(), fixed(10, validation="folds")])
def test_every_image_has_one_role_and_no_patient_has_two(settings: SplitSettings, seed: int) -> None:
    index = a_cohort(seed=seed)
    for fold in range(5):
        for labelled in FRACTIONS:
            split = split_of(index, settings, fold=fold, seed=seed, labelled=labelled)
            parts = (split.labelled, split.validation, split.unlabelled, split.test)
            assert sorted(row for part in parts for row in part) == list(range(100))
            people = [patients_of(index, part) for part in parts]
            assert sum(map(len, people)) == len(set().union(*people))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("settings", [SplitSettings(), fixed(10, validation="folds")])
def test_labelled_subsets_are_nested_and_so_is_validation(settings: SplitSettings, seed: int) -> None:
    index = a_cohort(seed=seed)
    splits = [split_of(index, settings, fold=2, seed=seed, labelled=share, min_cases=0) for share in FRACTIONS]
    for small, large in pairwise(splits):
        assert set(small.labelled) <= set(large.labelled)
        assert set(small.validation) <= set(large.validation)


@pytest.mark.parametrize("seed", range(12))
def test_labelled_is_the_shortest_prefix_of_the_order_with_enough_images(seed: int) -> None:
    index = a_cohort(seed=seed)
    for labelled, minimum in ((0.3, None), (17, 17)):
        split = split_of(index, seed=seed, labelled=labelled)
        training = 100 - len(split.test)
        required = minimum or -(-training * 3 // 10)
        tested = patients_of(index, split.test)
        order = [patient for patient in patient_order(index, range(100), seed, 0) if patient not in tested]
        chosen = patients_of(index, split.labelled) | patients_of(index, split.validation)
        assert set(order[: len(chosen)]) == chosen
        last = index.patients.count(order[len(chosen) - 1])
        assert split.labelled_images - last < required <= split.labelled_images


def test_a_fraction_that_is_an_integer_in_decimals_is_not_rounded_up() -> None:
    index = an_index([f"p{row}" for row in range(110)])
    split = split_of(index, fixed(10), folds=1, labelled=0.07)
    assert split.labelled_images == 7


@pytest.mark.parametrize("seed", range(12))
def test_every_fold_tests_once_and_folds_are_balanced(seed: int) -> None:
    index = a_cohort(seed=seed)
    tests = [split_of(index, fold=fold, seed=seed).test for fold in range(5)]
    assert sorted(row for test in tests for row in test) == list(range(100))
    sizes = [len(test) for test in tests]
    assert max(sizes) - min(sizes) <= max(Counter(index.patients).values())
    for category in "abc":
        people = [len({index.patients[row] for row in t if index.categories[row] == category}) for t in tests]
        assert max(people) - min(people) <= 1


def test_folds_of_single_images_differ_by_one_image_at_most() -> None:
    index = an_index([f"p{row}" for row in range(43)], ["abcdefg"[row % 7] for row in range(43)])
    for seed in range(20):
        sizes = [len(split_of(index, folds=4, fold=fold, seed=seed).test) for fold in range(4)]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", range(12))
def test_every_prefix_has_about_the_category_shares_of_all_images(seed: int) -> None:
    shares = {"a": 60, "b": 30, "c": 10}
    categories = [name for name, count in shares.items() for _ in range(count)]
    index = an_index([f"p{row:03d}" for row in range(100)], categories)
    order = patient_order(index, range(100), seed)
    for length in range(1, 101):
        category_counts = Counter(categories[int(patient[1:])] for patient in order[:length])
        for name, count in shares.items():
            assert abs(category_counts[name] - length * count / 100) < 2


def test_patients_of_rare_categories_are_as_early_as_others() -> None:
    categories = ["a"] * 50 + [f"rare {number}" for number in range(50)]
    index = an_index([f"p{row:03d}" for row in range(100)], categories)
    early = [sum(int(p[1:]) >= 50 for p in patient_order(index, range(100), seed)[:20]) for seed in range(40)]
    assert 8.5 < sum(early) / 40 < 11.5


def test_a_patient_counts_under_its_most_frequent_category() -> None:
    index = an_index(["p0", "p0", "p0", "p1"], ["a", "b", "b", "b"])
    starts = {patient_order(index, range(4), seed) for seed in range(30)}
    assert starts == {("p0", "p1"), ("p1", "p0")}
    folds = [split_of(index, folds=2, fold=fold, min_cases=9).test for fold in range(2)]
    assert sorted(folds, key=len) == [(3,), (0, 1, 2)]


def test_seeds_change_order_and_folds_unless_a_split_seed_is_set() -> None:
    index = a_cohort()
    assert len({split_of(index, seed=seed, labelled=0.5) for seed in range(8)}) == 8
    with_split_seed = SplitSettings(seed=3)
    assert len({split_of(index, with_split_seed, seed=seed, labelled=0.5) for seed in range(8)}) == 1
    assert split_of(index, with_split_seed, seed=9) == split_of(index, seed=3)


def test_the_order_does_not_depend_on_the_process_or_the_order_of_rows() -> None:
    index = an_index([f"c/p{row}" for row in range(30)], ["ab"[row % 2] for row in range(30)])
    order = patient_order(index, range(30), 5)
    assert patient_order(index, reversed(range(30)), 5) == order
    code = (
        "import runpy, sys; from datasets.splits.assignment import patient_order;"
        f"index = runpy.run_path({__file__!r})['an_index'](['c/p%d' % r for r in range(30)], list('ab' * 15));"
        "print(*patient_order(index, range(30), 5))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuple(run.stdout.split()) == order


def test_the_order_is_stable_across_versions() -> None:
    index = an_index([f"p{row}" for row in range(8)], list("aaaabbcc"))
    assert patient_order(index, range(8), 1) == ("p3", "p4", "p2", "p7", "p1", "p5", "p0", "p6")


def test_every_fifth_patient_of_the_prefix_validates() -> None:
    index = an_index([f"p{row:03d}" for row in range(60)])
    split = split_of(index, fixed(10), folds=1, labelled=40)
    tested = patients_of(index, split.test)
    order = [patient for patient in patient_order(index, range(60), 0, 0) if patient not in tested]
    assert patients_of(index, split.validation) == set(order[4:40:5])
    tenth = split_of(index, fixed(10, validation=ValidationShare(share=0.1)), folds=1, labelled=40)
    assert patients_of(index, tenth.validation) == set(order[9:40:10])


def test_with_too_few_validation_images_all_images_train() -> None:
    index = an_index([f"p{row}" for row in range(60)])
    split = split_of(index, fixed(10), folds=1, labelled=20, min_cases=5)
    assert (len(split.labelled), split.validation) == (20, ())
    assert len(split_of(index, fixed(10), folds=1, labelled=20, min_cases=4).validation) == 4


def test_a_volume_counts_once_for_any_number_of_slices() -> None:
    patients = [f"p{row // 10}" for row in range(300)]
    index = replace(an_index(patients), volumes=patients)
    with_validation, without_validation = (
        split_of(index, folds=5, min_cases=number) for number in (4, 5)
    )  # 24 volumes: four of them validate
    assert len({index.volume(row) for row in with_validation.validation}) == 4
    assert len(with_validation.validation) == 40
    assert not without_validation.validation
    assert len(without_validation.labelled) == 240
    pretraining = [bool(pretraining_of(index, min_cases=number).validation) for number in (6, 7)]
    assert pretraining == [True, False]  # six of 30 volumes


def test_validation_by_folds_rotates_with_a_fixed_test_set() -> None:
    index = a_cohort()
    settings = fixed(10, validation="folds")
    splits = [split_of(index, settings, fold=fold) for fold in range(5)]
    assert len({split.test for split in splits}) == 1
    validated = sorted(row for split in splits for row in split.validation)
    assert validated == sorted(set(range(100)) - set(splits[0].test))


def test_folds_share_few_labelled_patients_at_a_small_fraction() -> None:
    index = an_index([f"p{row:03d}" for row in range(200)])
    labelled = [patients_of(index, split_of(index, fold=fold, labelled=0.1).labelled) for fold in range(5)]
    shared = [len(first & second) / 16 for first, second in combinations(labelled, 2)]
    # Independent draws of 16 out of 160 patients share about 10 %; one order for all folds would share about 80 %.
    assert sum(shared) / len(shared) < 0.25


def test_labelled_subsets_are_nested_within_a_seed_and_fold() -> None:
    index = a_cohort()
    for fold in range(5):
        splits = [split_of(index, fold=fold, labelled=fraction) for fraction in FRACTIONS]
        cases = [{*split.labelled, *split.validation} for split in splits]
        assert all(smaller < larger for smaller, larger in pairwise(cases))


def test_validation_by_folds_beside_test_by_folds_is_the_next_fold() -> None:
    index = a_cohort()
    settings = SplitSettings(validation="folds")
    splits = [split_of(index, settings, fold=fold) for fold in range(5)]
    for fold, split in enumerate(splits):
        assert split.validation == splits[(fold + 1) % 5].test


@pytest.mark.parametrize("count", [1, 7, 10, 33])
def test_a_fixed_test_set_is_exact_and_shared_by_seeds(count: int) -> None:
    for data_seed in range(5):
        index = a_cohort(seed=data_seed)
        tests = {split_of(index, fixed(count), folds=1, seed=seed).test for seed in range(4)}
        assert len(tests) == 1
        assert len(next(iter(tests))) == count


def test_a_split_seed_draws_another_fixed_test_set() -> None:
    index = a_cohort()
    assert len({split_of(index, fixed(10, seed=seed), folds=1).test for seed in range(5)}) == 5
    assert split_of(index, fixed(10, seed=0), folds=1).test == split_of(index, fixed(10), folds=1).test


def test_a_test_set_size_that_patients_cannot_match_is_rounded_up() -> None:
    index = an_index([f"p{row // 3}" for row in range(60)])
    assert len(split_of(index, fixed(10), folds=1).test) == 12


@pytest.mark.parametrize("count", [1, 500, 2500, 6000])
def test_drawing_from_many_images_is_exact_too(count: int) -> None:
    sizes = [1 + number % 7 for number in range(2000)]
    index = an_index([f"p{number}" for number, size in enumerate(sizes) for _ in range(size)])
    members = members_of(index, range(len(index)))
    chosen = draw_images(list(members), members, count)
    assert sum(len(members[patient]) for patient in chosen) == count


def test_the_drawn_combination_is_the_smallest_that_reaches_the_number() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        members = {f"p{n}": list(range(draw.choice((3, 4, 7, 8)))) for n in range(6)}
        count = draw.randint(1, sum(map(len, members.values())))
        sums = {0}
        for rows in members.values():
            sums |= {total + len(rows) for total in sums}
        chosen = draw_images(list(members), members, count)
        assert sum(len(members[p]) for p in chosen) == min(total for total in sums if total >= count)


def test_categories_of_a_single_image_may_exceed_the_test_fraction() -> None:
    index = an_index([f"p{row}" for row in range(42)], ["a"] * 40 + ["rare", "rarer"])
    plain = split_of(index, SplitSettings.model_validate({"test": {"share": 0.15}}), folds=1)
    rare = split_of(
        index, SplitSettings.model_validate({"test": {"share": 0.15, "and": "single_case_categories"}}), folds=1
    )
    assert len(plain.test) == 6
    assert len(rare.test) == 8
    assert {40, 41} <= set(rare.test)


def test_listed_images_are_used_for_test_and_validation(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("i000003\n\ni000007\n")
    (tmp_path / "validation.txt").write_text("i000001\ni000002\n")
    index = an_index([f"p{row}" for row in range(10)])
    settings = SplitSettings(
        test=FileList(list=tmp_path / "test.txt"), validation=FileList(list=tmp_path / "validation.txt")
    )
    split = split_of(index, settings, folds=1)
    assert (split.test, split.validation) == ((3, 7), (1, 2))
    small = split_of(index, settings, folds=1, labelled=4, min_cases=0)
    assert set(small.validation) <= {1, 2}
    assert small.labelled_images == 4


def test_the_publishers_split_is_used() -> None:
    official = ["test", "test", "validation", "train", "", "train"]
    index = an_index([f"p{row}" for row in range(6)], official=official)
    split = split_of(index, SplitSettings(test="official", validation="official"), folds=1)
    assert (split.test, split.validation, split.labelled) == ((0, 1), (2,), (3, 4, 5))


def test_images_without_masks_are_unlabelled_unless_their_patient_is_held_out() -> None:
    masks = ["m"] * 20 + [""] * 20
    index = an_index([f"p{row % 20}" for row in range(40)], masks=masks)
    split = split_of(index, SplitSettings(), folds=4)
    held_out = patients_of(index, split.test) | patients_of(index, split.validation)
    assert set(split.unlabelled) == {row for row in range(20, 40) if index.patients[row] not in held_out}
    assert max(split.test + split.labelled + split.validation) < 20


def test_images_without_masks_of_the_publishers_test_set_never_train() -> None:
    official, masks = ["train"] * 4 + ["test"] * 3, ["m"] * 5 + [""] * 2
    index = an_index([f"p{row}" for row in range(7)], official=official, masks=masks)
    split = split_of(index, SplitSettings(test="official"), folds=1, min_cases=9)
    assert (split.test, split.unlabelled) == ((4,), ())


def test_images_with_faults_are_excluded() -> None:
    faults, masks = ["truncated", "truncated"] + [""] * 18, [""] + ["m"] * 19
    split = split_of(an_index([f"p{row}" for row in range(20)], faults=faults, masks=masks))
    assert not {0, 1} & set(split.labelled + split.validation + split.unlabelled + split.test)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (SplitSettings(), {"folds": 11}, "11 folds over 10 patients"),
        (SplitSettings(), {"folds": 1}, "folds is 1"),
        (fixed(2), {"folds": 5}, "would do nothing"),
        (fixed(2, validation="folds"), {"folds": 1}, "folds is 1"),
        (fixed(2, validation="folds"), {"folds": 9}, "9 folds over 8 patients"),
        (fixed(11), {"folds": 1}, "11 images out of 10"),
        (fixed(10), {"folds": 1}, "of 0 training images"),
        (SplitSettings(), {"labelled": 0.0}, "labelled is 0.0"),
        (SplitSettings(), {"labelled": 1.5}, "labelled is 1.5"),
        (SplitSettings(), {"labelled": 9}, "labelled is 9 of 8"),
        (SplitSettings(validation="folds"), {"folds": 2, "min_cases": 0}, "no image is left that trains"),
        (fixed(2, validation=ValidationShare(share=0.9)), {"folds": 1}, "no image is left that trains"),
        (SplitSettings(test="official"), {"folds": 1}, "holds no image with masks"),
    ],
)
def test_impossible_splits_are_refused(settings: SplitSettings, changes: dict[str, Any], message: str) -> None:
    index = an_index([f"p{row}" for row in range(10)])
    with pytest.raises(DataError, match=message) as caught:
        split_of(index, settings, **changes)
    assert "; allowed: " in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("i000001\nnobody\n", "names the image nobody, which the data lacks"),
        ("i000009\n", "names image i000009, which has a fault or no masks"),
        ("i000000\n", "patient p0 lies on both sides"),
        (None, "cannot be read"),
        ("", "holds no image"),
    ],
)
def test_invalid_lists_are_refused(tmp_path: Path, lines: str | None, message: str) -> None:
    if lines is not None:
        (tmp_path / "test.txt").write_text(lines)
    index = an_index(["p0", *[f"p{row}" for row in range(8)], "p9"], masks=["m"] * 9 + [""])
    with pytest.raises(DataError, match=message):
        split_of(index, SplitSettings(test=FileList(list=tmp_path / "test.txt")), folds=1)


def pretraining_of(index: Index, settings: SplitSettings | None = None, **changes: object) -> Split:
    arguments: dict[str, Any] = {
        "annotation_kind": "masks",
        "seed": 0,
        "min_cases": 1,
        "exclude": frozenset(),
    } | changes
    return pretraining_split(index, settings or SplitSettings(), **arguments)


def test_pretraining_excludes_listed_images_and_a_fixed_test_part_only() -> None:
    index = a_cohort()
    everything = pretraining_of(index, exclude=frozenset({3, 4}))
    assert sorted(everything.labelled + everything.validation) == sorted(set(range(100)) - {3, 4})
    assert not everything.test
    with_test_set = pretraining_of(index, fixed(20))
    assert with_test_set.test == split_of(index, fixed(20), folds=1).test
    assert not patients_of(index, with_test_set.test) & patients_of(
        index, with_test_set.labelled + with_test_set.validation
    )


def test_pretraining_on_images_needs_no_annotation() -> None:
    index = an_index([f"p{row}" for row in range(10)], masks=["m"] * 5 + [""] * 5)
    assert pretraining_of(index, annotation_kind=None).labelled_images == 10
    assert pretraining_of(index).labelled_images == 5


def test_pretraining_validates_by_fraction_if_the_target_validates_by_folds() -> None:
    index = a_cohort()
    by_folds = pretraining_of(index, SplitSettings(validation="folds"))
    assert by_folds == pretraining_of(index)
    assert len(by_folds.validation) > 5
    assert not pretraining_of(index, min_cases=50).validation


def test_pretraining_without_an_image_is_refused() -> None:
    index = an_index(["p0", "p1"])
    with pytest.raises(DataError, match="no image is left that trains"):
        pretraining_of(index, exclude=frozenset({0, 1}))


def test_the_fingerprint_depends_on_content_and_annotation_but_not_on_order() -> None:
    index = a_cohort(10)
    original = fingerprint(index, range(10), ["masks"])
    assert fingerprint(index, reversed(range(10)), ["masks"]) == original
    others = {
        fingerprint(index, range(9), ["masks"]),
        fingerprint(index, range(10), []),
        fingerprint(an_index(list(index.patients), masks=["other"] * 10), range(10), ["masks"]),
    }
    assert len(others | {original}) == 4
    assert len(original) == 32


RESERVE = 0.3


def test_the_reserve_is_in_no_test_fold_and_trains_in_all() -> None:
    index = a_cohort()
    reserve = {
        row
        for row, patient in enumerate(index.patients)
        if patient in reserved(index, SplitSettings(), "masks", RESERVE)
    }
    for seed in (0, 1):
        for fold in range(5):
            split = split_of(index, fold=fold, seed=seed, reserve=RESERVE)
            assert reserve.isdisjoint(split.test)
            assert reserve <= {*split.labelled, *split.validation}


def test_folds_test_every_image_outside_of_the_reserve_once() -> None:
    index = a_cohort()
    tested = [row for fold in range(5) for row in split_of(index, fold=fold, reserve=RESERVE).test]
    reserve = reserved(index, SplitSettings(), "masks", RESERVE)
    assert sorted(tested) == [row for row, patient in enumerate(index.patients) if patient not in reserve]


def test_the_reserve_depends_on_the_split_seed_and_smaller_reserves_are_subsets() -> None:
    index = a_cohort()
    assert reserved(index, SplitSettings(), "masks", RESERVE) != reserved(
        index, SplitSettings(seed=1), "masks", RESERVE
    )
    assert reserved(index, SplitSettings(), "masks", 0.2) < reserved(index, SplitSettings(), "masks", RESERVE)


def test_subsets_are_nested_with_a_reserve_and_differ_between_folds() -> None:
    index = a_cohort()
    rows = [
        [
            {*s.labelled, *s.validation}
            for f in FRACTIONS
            for s in [split_of(index, fold=fold, labelled=f, reserve=RESERVE)]
        ]
        for fold in (0, 1)
    ]
    assert all(small <= large for fold in rows for small, large in pairwise(fold))
    assert rows[0][1] != rows[1][1]


def test_the_split_of_the_reserve_has_no_test_image_and_no_other_image() -> None:
    index = a_cohort()
    split = reserve_split(index, SplitSettings(), annotation_kind="masks", share=RESERVE, min_cases=2)
    reserve = reserved(index, SplitSettings(), "masks", RESERVE)
    assert split.test == ()
    assert split.validation
    assert {index.patients[row] for row in (*split.labelled, *split.validation)} == reserve
    assert not {index.patients[row] for row in split.labelled} & {index.patients[row] for row in split.validation}


def test_a_fixed_test_set_is_not_part_of_the_reserve() -> None:
    index, settings = a_cohort(), SplitSettings.model_validate({"test": {"images": 20}})
    split = split_of(index, settings, folds=1, reserve=RESERVE)
    assert not {index.patients[row] for row in split.test} & reserved(index, settings, "masks", RESERVE)
    assert len(split.test) == 20


def test_a_reserve_of_all_patients_is_refused() -> None:
    with pytest.raises(DataError, match="takes all"):
        reserved(a_cohort(), SplitSettings(), "masks", 1.0)
