from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.checks.findings import check
from datasets.checks.leakage import BLOCK, MAX_HASH_DISTANCE, Match, matches, repeats
from datasets.source import Index, Pixels
from datasets.sources import FolderSettings, PhantomSettings, open_source
from tests.support.folder import STEMS, write_folder
from tests.support.indexes import index
from tests.support.pictures import picture, save, truncate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


def index_of(root: Path) -> Index:
    return open_source(FolderSettings(root=root)).index(root.parent / "cache")


def test_sound_data_have_no_findings(root: Path, tmp_path: Path) -> None:
    assert check(index_of(root)) == []
    assert check(open_source(PhantomSettings()).index(tmp_path)) == []


def test_a_faulty_row_is_an_error_with_its_id_and_comes_first(root: Path) -> None:
    truncate(root / "images" / "dora.png")
    save(picture(0), root / "images" / "emil.jpg")
    (root / "images" / "emil.jpg").write_bytes((root / "images" / "anna-1.png").read_bytes())
    first, second = check(index_of(root))
    assert (first.severity, first.ids) == ("error", ("dora",))
    assert (second.severity, second.ids) == ("warning", ("anna-1", "emil"))


def test_one_image_repeated_in_more_than_half_of_the_rows_is_an_error(root: Path) -> None:
    for path in list((root / "images").iterdir())[:4]:
        path.write_bytes((root / "images" / "anna-1.png").read_bytes())
    repeated = [finding for finding in check(index_of(root)) if "repeats one image" in finding.message]
    assert [(finding.severity, len(finding.ids) >= 4) for finding in repeated] == [("error", True)]


def test_one_image_in_different_files_of_more_than_half_of_the_rows_is_an_error(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "data" / "images" / f"{number}.png"
        save(picture(max(number, 3)), path, compress_level=number)
    alike = [finding for finding in check(index_of(tmp_path / "data")) if "look the same" in finding.message]
    assert [(finding.severity, finding.ids) for finding in alike] == [("error", ("0", "1", "2", "3"))]


def write_same_masks(root: Path, mask: Pixels, stems: Sequence[str]) -> Index:
    for stem in stems:
        save(mask, root / "masks" / f"{stem}.png")
    return index_of(root)


def test_one_mask_in_more_than_half_of_the_rows_with_masks_is_an_error(root: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[5:20, 5:20] = 1
    findings = check(write_same_masks(root, mask, STEMS[:2]))
    assert not any("masks are equal" in finding.message for finding in findings)
    findings = check(write_same_masks(root, mask, STEMS[:3]))
    assert [(finding.severity, finding.ids) for finding in findings if "masks are equal" in finding.message] == [
        ("error", STEMS[:3])
    ]


def test_empty_masks_may_be_equal(root: Path) -> None:
    findings = check(write_same_masks(root, np.zeros((48, 64), np.uint8), STEMS[:5]))
    assert {finding.severity for finding in findings} == {"warning"}


def test_a_data_set_without_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    assert [finding.severity for finding in check(index_of(tmp_path / "data"))] == ["error"]


def test_constant_images_empty_masks_and_unused_classes_are_warnings(root: Path) -> None:
    save(np.full((48, 64), 9, np.uint8), root / "images" / "anna-1.png")
    save(np.zeros((48, 64), np.uint8), root / "masks" / "dora.png")
    (root / "classes.txt").write_text("disc\ncup\nfovea\n")
    findings = check(index_of(root))
    assert {finding.severity for finding in findings} == {"warning"}
    assert [finding.ids for finding in findings] == [("anna-1",), ("dora",), ()]
    assert "the classes fovea;" in findings[2].message


def test_shared_patients_match_in_all_their_images() -> None:
    pairs = matches(index(patients=["a/1", "a/2", "b/1"]), index(patients=["a/2", "a/2", "c/1"]))
    assert pairs == [Match(kind="patient", row=1, target_row=0), Match(kind="patient", row=1, target_row=1)]


def test_the_same_file_matches_only_as_a_file() -> None:
    first = index(content=["x", "y"], thumbnails=["0f" * 32, "f0" * 32])
    second = index(content=["z", "y"], thumbnails=["00" * 32, "f0" * 32])
    assert matches(first, second) == [Match(kind="file", row=1, target_row=1)]


@pytest.mark.parametrize(("bits", "expected"), [(0, 1), (MAX_HASH_DISTANCE, 1), (MAX_HASH_DISTANCE + 1, 0)])
def test_images_match_up_to_the_threshold(bits: int, expected: int) -> None:
    assert len(matches(index(thumbnails=[f"{2**bits - 1:064x}"]), index(thumbnails=["0" * 64]))) == expected


def test_empty_thumbnails_and_unreadable_files_never_match() -> None:
    nothing = index(thumbnails=["", ""], content=["", ""])
    assert matches(nothing, replace(nothing, patients=["x/1", "x/2"])) == []


def test_a_resized_and_re_encoded_copy_is_matched_between_folders(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    original = picture(50, width=400, height=300)
    save(original, root / "images" / "emil.jpg")
    copy = tmp_path / "other" / "images" / "unrelated-name.jpg"
    save(np.asarray(Image.fromarray(original).resize((200, 160))), copy, quality=70)
    save(picture(51, width=400, height=300), tmp_path / "other" / "images" / "different.png")
    other, target = index_of(tmp_path / "other"), index_of(root)
    assert [(m.kind, other.ids[m.row], target.ids[m.target_row]) for m in matches(other, target)] == [
        ("picture", "unrelated-name", "emil")
    ]


def test_matches_computed_in_blocks_equal_those_of_all_pairs() -> None:
    random = np.random.default_rng(1)
    thumbnails = random.integers(0, 2, (40, 256))
    sampled = thumbnails[random.integers(0, 40, BLOCK + 500)]
    noisy = sampled ^ (random.random(sampled.shape) < 0.025)
    many, few = noisy[: BLOCK + 400], noisy[-100:]
    distance = (many[:, None] != few[None]).sum(axis=2)
    expected = {(int(row), int(target)) for row, target in np.argwhere(distance <= MAX_HASH_DISTANCE)}
    pairs = matches(index(thumbnails=hexadecimal(many)), index(thumbnails=hexadecimal(few)))
    assert {(match.row, match.target_row) for match in pairs} == expected
    assert len(expected) > 1000


def test_a_repeated_image_is_paired_with_the_first_of_another_patient() -> None:
    random = np.random.default_rng(2)
    rows = BLOCK + 300
    kinds = random.integers(0, 60, rows)
    noisy = random.integers(0, 2, (60, 256))[kinds] ^ (random.random((rows, 256)) < 0.025)
    patients = [f"x/{number}" for number in random.integers(0, 3, rows)]
    content = [f"file-{number}" if number % 5 == 0 else "" for number in random.integers(0, 300, rows)]
    thumbnails = ["" if number % 9 == 0 else text for number, text in enumerate(hexadecimal(noisy))]
    source = index(thumbnails=thumbnails, content=content, patients=patients)
    used = list(range(50, rows))
    hidden = np.array([not text for text in thumbnails])
    distance = noisy.astype(np.int16) @ (1 - noisy).T + (1 - noisy).astype(np.int16) @ noisy.T
    alike = (distance <= MAX_HASH_DISTANCE) & ~hidden & ~hidden[:, None]
    files = np.unique(content, return_inverse=True)[1]
    alike |= (files == files[:, None]) & (np.array(content) != "")
    alike &= np.array(patients) != np.array(patients)[:, None]
    alike &= np.tri(rows, k=-1, dtype=bool)
    alike[:, :50] = False
    expected = [(int(alike[row].argmax()), row) for row in used if alike[row].any()]
    assert repeats(source, used) == expected
    assert 1000 < len(expected) < len(used)


def hexadecimal(bits: NDArray[np.integer]) -> list[str]:
    return [np.packbits(row).tobytes().hex() for row in bits]


def test_copies_of_the_last_of_224316_images_are_matched() -> None:
    random = np.random.default_rng(0)
    many = index(thumbnails=[bytes(row).hex() for row in random.integers(0, 256, (224_316, 32), np.uint8)])
    few = index(thumbnails=many.thumbnails[-100:])
    assert [match.target_row for match in matches(many, few)] == list(range(100))
