"""Which images have weak labels, and where these come from."""

from dataclasses import replace

import pytest

from datasets.source import Index
from datasets.splits.weak_rows import WeakName, weak_fingerprint, weak_rows
from tests.support.indexes import index as images

CLASSES = ("a", "b")


def index(*, complete: str = "", shown: str = "", annotated: str = "", **annotation: str) -> Index:
    """Return an index of two classes; each kind of annotation has one character per row, - for none.

    Of `complete`, `shown` and `annotated` the characters are bits of classes: 1 for a, 2 for b, 3 for both; of
    `complete` 4 stands for the background.
    """
    digests = {kind: ["" if mark == "-" else mark for mark in marks] for kind, marks in annotation.items()}
    made = images(content=["x"] * len(digests["masks"]))
    return replace(
        made, classes=CLASSES, annotation_digests=digests, shown=list(shown), annotated=list(annotated),
        complete={kind: list(complete) for kind in digests if kind != "masks" and complete},
    )  # fmt: skip


KINDS: list[tuple[WeakName, str]] = [
    ("class", "labels"), ("box", "boxes"), ("scribble", "scribbles"), ("points", "points")
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_own_annotation_comes_before_masks_and_images_with_neither_are_left_out(name: WeakName, kind: str) -> None:
    rows = weak_rows(index(masks="mm--", **{kind: "x-x-"}, complete="7070", shown="33--"), range(4), name)
    assert (rows.own, rows.derived, rows.all) == ((0, 2), (1,), (0, 1, 2))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_annotation_of_a_part_of_the_classes_is_used_where_there_is_no_mask(name: WeakName, kind: str) -> None:
    made = index(masks="mm-", **{kind: "xxx"}, complete="671", shown="33-")
    rows = weak_rows(made, range(3), name)
    assert (rows.own, rows.derived) == ((1, 2), (0,))


@pytest.mark.parametrize(("name", "used"), [("class", False), ("box", False), ("scribble", True), ("points", True)])
def test_scribbles_and_points_of_all_classes_in_a_mask_are_complete(name: WeakName, used: bool) -> None:
    kind = dict(KINDS)[name]
    rows = weak_rows(index(masks="m", **{kind: "x"}, complete="5", shown="1"), range(1), name)
    assert (rows.own, rows.derived) == (((0,), ()) if used else ((), (0,)))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_classes_that_a_mask_does_not_annotate_need_no_annotation(name: WeakName, kind: str) -> None:
    rows = weak_rows(index(masks="m", **{kind: "x"}, complete="5", shown="1", annotated="1"), range(1), name)
    assert rows.own == (0,)


@pytest.mark.parametrize(("name", "used"), [("class", False), ("box", False), ("scribble", True), ("points", True)])
def test_annotation_of_no_class_is_used_if_it_annotates_the_background(name: WeakName, used: bool) -> None:
    bits = "40" if used else "00"
    rows = weak_rows(index(masks="--", **{dict(KINDS)[name]: "x-"}, complete=bits), range(2), name)
    assert (rows.own, rows.derived) == (((0,) if used else ()), ())


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_files_without_annotation_are_not_used(name: WeakName, kind: str) -> None:
    rows = weak_rows(index(masks="m-", **{kind: "xx"}, complete="00", shown="0-"), range(2), name)
    assert (rows.own, rows.derived) == ((), (0,))


@pytest.mark.parametrize(("name", "used"), [("class", True), ("box", True), ("scribble", False), ("points", False)])
def test_scribbles_and_points_without_background_do_not_replace_masks(name: WeakName, used: bool) -> None:
    rows = weak_rows(index(masks="m-", **{dict(KINDS)[name]: "xx"}, complete="33", shown="3-"), range(2), name)
    assert (rows.own, rows.derived) == (((0, 1), ()) if used else ((1,), (0,)))


@pytest.mark.parametrize(("name", "seeded"), [("scribble", True), ("points", True), ("class", False), ("box", False)])
def test_the_seed_counts_where_labels_are_derived_at_random(name: WeakName, seeded: bool) -> None:
    made = index(masks="mm", **{dict(KINDS)[name]: "s-"}, complete="70")
    first, second = (weak_fingerprint(made, weak_rows(made, range(2), name), name, seed) for seed in (1, 2))
    assert (first != second) == seeded
    own = weak_rows(made, range(1), name)
    assert weak_fingerprint(made, own, name, 1) == weak_fingerprint(made, own, name, 2)


def test_masks_of_images_with_own_scribbles_do_not_count() -> None:
    made, other = index(masks="m", scribbles="s", complete="7"), index(masks="n", scribbles="s", complete="7")
    first, second = (
        weak_fingerprint(one, weak_rows(one, range(1), "scribble"), "scribble", 0) for one in (made, other)
    )
    assert first == second


def test_classes_that_annotation_is_complete_for_count() -> None:
    first, second = (index(masks="-", boxes="x", complete=bits) for bits in "13")
    rows = weak_rows(first, range(1), "box")
    assert rows == weak_rows(second, range(1), "box")
    assert weak_fingerprint(first, rows, "box", 0) != weak_fingerprint(second, rows, "box", 0)
