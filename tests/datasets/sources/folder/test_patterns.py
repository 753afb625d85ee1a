"""Patterns of paths that pair images and masks."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from datasets.sources import FolderSettings
from datasets.sources.folder.patterns import Match, Pattern, best


@pytest.mark.parametrize(
    ("pattern", "path", "match"),
    [
        ("images/{name}.png", "images/a b (1).png", Match(name="a b (1)")),
        ("images/{name}.png", "images/deep/a.png", None),
        ("images/{name}.png", "images/aXpng", None),
        ("train/*/{name}.jpg", "train/anna/3.jpg", Match(name="3")),
        ("train/*/{name}.jpg", "train/3.jpg", None),
        ("images/**/{name}.png", "images/anna/left/3.png", Match(name="anna/left/3")),
        ("images/**/{name}.png", "images/3.png", Match(name="3")),
        ("{name}.*", "a.b.JPG", Match(name="a.b")),
        ("{name}.*", "case.nii.gz", Match(name="case")),
        ("{name}/{name}_flair.nii.gz", "p1/p1_flair.nii.gz", Match(name="p1")),
        ("{name}/{name}_flair.nii.gz", "p1/p2_flair.nii.gz", None),
        ("m/{class}/{name}.png", "m/heart/3.png", Match(name="3", class_name="heart")),
        ("{part}/x/{name}.png", "Train/x/3.png", Match(name="3", part="Train")),
        ("{part}/x/{name}.png", "other/x/3.png", None),
    ],
)
def test_a_pattern_reads_names_from_paths(pattern: str, path: str, match: Match | None) -> None:
    assert Pattern(pattern).match(path) == match
    if match is not None and "/" in path:
        assert Pattern(pattern).enters(path.rpartition("/")[0])


def test_folders_that_cannot_match_are_not_entered() -> None:
    pattern = Pattern("train/*/{name}.jpg")
    entered = ("train", "train/anna", "test", "train/anna/x")
    assert [pattern.enters(folder) for folder in entered] == [True, True, False, False]
    assert Pattern("**/{name}.png").enters("any/depth/at all")


def test_a_part_names_the_published_split() -> None:
    match = Pattern("{part}/{name}.png").match("VALID/3.png")
    assert match is not None
    assert (match.key, match.official) == ("VALID/3", "validation")


def test_the_pattern_with_more_characters_takes_a_file_that_two_match() -> None:
    image, mask = Pattern("{name}.png"), Pattern("{name}_mask.png")
    assert best((image, mask), "1_mask.png") is mask
    assert best((image, mask), "1.png") is image
    assert best((image, mask), "1.jpg") is None


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("images/*.png", "lacks {name}"),
        ("images/{stem}.png", "has {stem}"),
        ("images/{name.png", "has {...}"),
        ("/images/{name}.png", "is no path below `root`"),
        ("../images/{name}.png", "is no path below `root`"),
        ("images/**{name}.png", "has ** in a wrong place"),
        ("**/a/**/{name}.png", "has ** in a wrong place"),
        ("{class}/{name}.png", "has {class}; allowed: {name}, {part}"),
    ],
)
def test_invalid_patterns_are_refused_with_what_is_allowed(pattern: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as error:
        FolderSettings(root=tmp_path, images=pattern)
    assert f"images is '{pattern}' and {fault}" in str(error.value)
    assert "allowed: " in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"masks": "m/{name}.png"}, "masks needs `images`"),
        ({"images": "{name}.png", "masks": "{name}.png"}, "allowed: different patterns"),
        ({"images": "{name}.jpg", "masks": "m/{name}.png", "annotators": {"a": "b/{name}.png", "b": "c/{name}.png"}},
         "masks and annotators"),
        ({"images": "{name}.jpg", "annotators": {"a": "b/{name}.png", "b": "c/{class}/{name}.png"}}, "all or none"),
        ({"images": "{part}/{name}.png", "lists": {"test": "test.txt"}}, "lists and {part}"),
        ({"mask_threshold": 127, "mask_values": {"a": 1}}, "mask_threshold and mask_values"),
        ({"mask_threshold": 127, "ignore": 255}, "ignore does not apply"),
        ({"mask_values": {"a": [1, 2, 300]}}, "mask_values.a has [1, 2, 300]"),
        ({"mask_values": {"a": [[1, 2]]}}, "mask_values.a has [1, 2]"),
        ({"mask_values": {"a": 1, "b": [1, 2]}}, "mask_values has [1] twice"),
        ({"mask_values": {"background": 1}}, "has 0 classes"),
        ({"mask_values": {"macro": 1}}, "name of an average"),
        ({"mask_values": {"a": 1}, "images": "{name}.png", "masks": "{class}/{name}.png"}, "masks have {class}"),
        ({"patients": "("}, "is no regular expression"),
        ({"lists": {"test": "/etc/passwd"}}, "allowed: a file below root"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_contradicting_keys_are_refused(keys: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as error:
        FolderSettings.model_validate({"root": tmp_path} | keys)
    assert message in str(error.value)
