"""Reading study files: strict YAML, overrides by dotted path."""

from pathlib import Path

import pytest

from study.config.document import parse_yaml, read_document, set_path, with_paths
from study.errors import ConfigError


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "Yes", "NO", "y"])
def test_words_that_yaml_1_1_reads_as_booleans_are_strings(word: str) -> None:
    assert parse_yaml(word) == word


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("-2E3", -2000.0), (".5", 0.5), ("3.", 3.0)]
)
def test_numbers_with_exponents_are_numbers(text: str, value: float) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert isinstance(parsed, float)


@pytest.mark.parametrize("text", ["1e", "e4", "1.2.3", "0x", "12:30:00"])
def test_text_that_starts_like_a_number_is_a_string(text: str) -> None:
    assert not isinstance(parse_yaml(text), float)


def test_true_false_integers_and_null_have_their_types() -> None:
    assert parse_yaml("[true, false, 3, -3, null, ~]") == [True, False, 3, -3, None, None]


def test_a_repeated_key_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("stages:\n  one: {epochs: 1}\n  two: {epochs: 1}\n  one: {epochs: 2}\n")
    with pytest.raises(ConfigError, match=r"'one' appears twice; allowed: each name once; rename or remove line 4"):
        read_document(file)


def test_merge_keys_and_anchors_are_supported() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")["b"] == {"x": 1, "y": 3}


def test_a_key_that_is_not_a_string_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("? [a, b]\n: 1\n")
    with pytest.raises(ConfigError, match="line 1: found unhashable key; allowed: "):
        read_document(file)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ConfigError, match=r"os\.getpid is not supported"):
        read_document(file)


def test_overrides_are_yaml_values_and_create_missing_mappings(tmp_path: Path) -> None:
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


def test_the_last_override_wins(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("image: {size: 64}\n")
    assert read_document(file, ["image.size=32", "image.size=96"]) == {"image": {"size": 96}}


def test_keys_of_compare_are_single_names_with_dots() -> None:
    document = {"compare": {"baseline": {"pathway": "none"}}}
    set_path(document, "compare.segment.loss.dice", [0.5, 1.0])
    set_path(document, "compare.baseline.pathway", "one")
    assert document == {"compare": {"baseline": {"pathway": "one"}, "segment.loss.dice": [0.5, 1.0]}}


def test_a_path_through_a_scalar_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'size' holds 64, which has no keys; allowed: a path to a key"):
        set_path({"image": {"size": 64}}, "image.size.x", 1)


def test_changed_copies_share_no_objects_with_the_original() -> None:
    before, value = {"a": {"b": [1]}}, [2]
    after = with_paths(before, {"a.c": value})
    after["a"]["b"].append(3)
    after["a"]["c"].append(4)
    assert before == {"a": {"b": [1]}}
    assert value == [2]


REFUSED_TEXTS = {
    "an octal number": ("a: 010", "line 1: 010 is octal in YAML 1.1 and decimal in YAML 1.2"),
    "thousands of digits": ("a: " + "9" * 5000, "line 1: a number of 5,000 digits; allowed: at most 100 digits"),
    "400 levels": ("a: " + "[" * 400 + "]" * 400, "nested more than 50 levels deep"),
    "an endless opening": ("{a: " * 100_000, "nested more than 50 levels deep"),
    "aliases that nest": ("".join(f"k{n}: &k{n} {'[' * 40}{f'*k{n - 1}' if n else 1}{']' * 40}\n" for n in range(9)),
                          "nested more than 50 levels deep"),
    "aliases that multiply": ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n"
                                                        for n in range(1, 12)), "holds more than 100,000 values"),
    "merge keys that multiply": ("a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)), "more than 100,000 values"),
    "a list in itself": ("a: &a [*a]", "holds more than 100,000 values"),
    "a large file": ("a: 1 # " + "x" * 2**19, "holds more than 0.5 MiB"),
    "half a character": ('a: "\\ud800"', "holds half of a surrogate pair"),
    "!!binary": ("a: !!binary x", "the tag tag:yaml.org,2002:binary is not supported"),
    "!!timestamp": ("a: !!timestamp x", "the tag tag:yaml.org,2002:timestamp is not supported"),
    "!!int": ("a: !!int x", "the tag tag:yaml.org,2002:int is not supported"),
    "!!set": ("a: !!set {x}", "the tag tag:yaml.org,2002:set is not supported"),
    "!!map of a list": ("a: !!map [x]", "the tag tag:yaml.org,2002:map is not supported"),
    "a tag of its own": ("a: !mine x", "the tag !mine is not supported"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED_TEXTS.values(), ids=REFUSED_TEXTS)
def test_yaml_that_is_not_plain_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_document(file)
    assert message in str(refused.value)
    assert "; allowed: " in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["2024-13-45", "2024-01-31", "190:20:30", "1:20.5", "08", "0b11", "0o17", "="])
def test_values_that_only_yaml_1_1_converts_are_strings(text: str) -> None:
    assert parse_yaml(text) == text


def test_decimal_and_hexadecimal_numbers_are_integers() -> None:
    assert parse_yaml("[0, 00, 12, -5, +3, 1_000, 0x1F]") == [0, 0, 12, -5, 3, 1000, 31]


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "2024-01-31"])
def test_keys_are_strings_as_written_in_the_file(word: str) -> None:
    assert parse_yaml(f"{word}: 1") == {word: 1}


def test_an_explicit_string_tag_is_allowed() -> None:
    assert parse_yaml("!!str 5") == "5"


def test_an_override_changes_one_use_of_an_anchor_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("a: &x {lr: 1}\nb: *x\n")
    assert read_document(file, ["a.lr=2"]) == {"a": {"lr": 2}, "b": {"lr": 1}}


@pytest.mark.parametrize("place", ["/dev/zero", ".", "x" * 300, "file/x"])
def test_paths_without_a_study_file_are_refused_in_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ConfigError) as refused:
        read_document(Path(place))
    assert "; allowed: a YAML text file" in str(refused.value)
