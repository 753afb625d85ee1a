from pathlib import Path

import pytest

from datasets.cache.atomic_files import atomic_path, read_hashed, write_hashed


def test_a_file_is_replaced_only_after_it_was_written(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "table.json"
    for text in ("old", "new"):
        with atomic_path(place) as temporary:
            temporary.write_text(text)
            assert not place.exists() or place.read_text() != text
        assert place.read_text() == text
    assert list(place.parent.iterdir()) == [place]


def test_a_hashed_file_is_read_only_if_its_hash_matches(tmp_path: Path) -> None:
    place = tmp_path / "table.bin"
    assert read_hashed(place) is None
    for content in (b"", b"some rows"):
        write_hashed(place, content)
        assert read_hashed(place) == content
    data = place.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        place.write_bytes(flipped)
        assert read_hashed(place) is None
    for length in range(len(data)):
        place.write_bytes(data[:length])
        assert read_hashed(place) is None


def test_a_file_is_unchanged_if_writing_fails(tmp_path: Path) -> None:
    place = tmp_path / "table.json"
    place.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"), atomic_path(place) as temporary:
        fail(temporary)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_an_error_names_the_file_instead_of_the_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with pytest.raises(FileNotFoundError) as error, atomic_path(path):
        pass
    assert error.value.filename == str(path)
