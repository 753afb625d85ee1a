from collections import Counter

from datasets.loading.balance import balanced


def test_balanced_rows_contain_all_categories_equally_often_and_images_of_a_category_equally_often() -> None:
    categories = ["hand", "hand", "hand", "foot", "foot", "knee"]
    counts = Counter(balanced(range(6), categories, 18))

    assert [sum(counts[row] for row in rows) for rows in ((0, 1, 2), (3, 4), (5,))] == [6, 6, 6]
    assert [counts[row] for row in range(6)] == [2, 2, 2, 3, 3, 6]


def test_balanced_rows_are_among_the_given_ones() -> None:
    assert set(balanced([2, 5], ["a", "b", "a", "b", "a", "b"], 4)) == {2, 5}


def test_all_rows_of_a_category_larger_than_its_share_are_used() -> None:
    categories = ["many"] * 10 + ["few"] * 2
    counts = Counter(balanced(range(12), categories, 6))

    assert set(counts) == set(range(12))
    assert sum(counts[row] for row in range(10)) == sum(counts[row] for row in (10, 11)) == 10
