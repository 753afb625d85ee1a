from collections import Counter

from datasets.loading.balance import balanced


def test_balanced_rows_hold_every_category_as_often_and_each_image_as_often_within_one() -> None:
    categories = ["hand", "hand", "hand", "foot", "foot", "knee"]
    counts = Counter(balanced(range(6), categories, 18))

    assert [sum(counts[row] for row in rows) for rows in ((0, 1, 2), (3, 4), (5,))] == [6, 6, 6]
    assert [counts[row] for row in range(6)] == [2, 2, 2, 3, 3, 6]


def test_balanced_rows_are_rows_that_were_given() -> None:
    assert set(balanced([2, 5], ["a", "b", "a", "b", "a", "b"], 4)) == {2, 5}


def test_no_row_is_left_out_of_a_category_larger_than_its_share() -> None:
    categories = ["many"] * 10 + ["few"] * 2
    counts = Counter(balanced(range(12), categories, 6))

    assert set(counts) == set(range(12))
    assert sum(counts[row] for row in range(10)) == sum(counts[row] for row in (10, 11)) == 10
