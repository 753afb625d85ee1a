"""Reading study files: strict YAML, overrides by dotted path."""

from pathlib import Path

import pytest

from study.document import parse_yaml, read_document, set_path, with_paths
from study.problems import Refused


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "Yes", "NO", "y"])
def test_words_that_yaml_1_1_reads_as_booleans_are_words(word: str) -> None:
    assert parse_yaml(word) == word


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("-2E3", -2000.0), (".5", 0.5), ("3.", 3.0)]
)
def test_numbers_with_exponents_are_numbers(text: str, value: float) -> None:
    found = parse_yaml(text)
    assert found == value
    assert isinstance(found, float)


@pytest.mark.parametrize("text", ["1e", "e4", "1.2.3", "0x", "12:30:00"])
def test_what_only_begins_like_a_number_is_text(text: str) -> None:
    assert not isinstance(parse_yaml(text), float)


def test_true_false_whole_numbers_and_null_are_what_they_look_like() -> None:
    assert parse_yaml("[true, false, 3, -3, null, ~]") == [True, False, 3, -3, None, None]


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("stages:\n  one: {epochs: 1}\n  two: {epochs: 1}\n  one: {epochs: 2}\n")
    with pytest.raises(Refused, match=r"'one' stands twice; allowed: each name once; rename or remove line 4"):
        read_document(file)


def test_merge_keys_and_anchors_still_work() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")["b"] == {"x": 1, "y": 3}


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("? [a, b]\n: 1\n")
    with pytest.raises(Refused, match="line 1: found unhashable key; allowed: "):
        read_document(file)


def test_nothing_in_a_file_can_run_code(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: !!python/object/apply:os.getpid []\n")
    with pytest.raises(Refused, match="could not determine a constructor"):
        read_document(file)


def test_overrides_are_yaml_values_and_make_mappings_on_the_way(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("image: {size: 64}\n")
    document = read_document(
        file, ["image.size=32", "compare.seeds=[0, 1]", "data.ccxs.root=a=b", "evaluate.threshold=3e-1"]
    )
    assert document == {
        "image": {"size": 32},
        "compare": {"seeds": [0, 1]},
        "data": {"ccxs": {"root": "a=b"}},
        "evaluate": {"threshold": 0.3},
    }


def test_a_later_override_wins(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("image: {size: 64}\n")
    assert read_document(file, ["image.size=32", "image.size=96"]) == {"image": {"size": 96}}


def test_what_compare_varies_is_one_name_with_dots() -> None:
    document = {"compare": {"baseline": {"pathway": "none"}}}
    set_path(document, "compare.segment.loss.dice", [0.5, 1.0])
    set_path(document, "compare.baseline.pathway", "one")
    assert document == {"compare": {"baseline": {"pathway": "one"}, "segment.loss.dice": [0.5, 1.0]}}


def test_a_path_through_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'size' holds 64, which has no keys; allowed: a path to a key"):
        set_path({"image": {"size": 64}}, "image.size.x", 1)


def test_changed_copies_share_nothing_with_the_original() -> None:
    before, value = {"a": {"b": [1]}}, [2]
    after = with_paths(before, {"a.c": value})
    after["a"]["b"].append(3)
    after["a"]["c"].append(4)
    assert before == {"a": {"b": [1]}}
    assert value == [2]
