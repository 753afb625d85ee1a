import io
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.cache import manifest
from datasets.cache.manifest import read_manifest, scan, thumbnail
from datasets.decoding.decode import Kind
from datasets.errors import DataError
from tests.support.dicom import write_dicom
from tests.support.pictures import picture, save, truncate

FOLDERS: dict[str, Kind] = {"images": "image", "masks": "ids"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        save(picture(number, width=64 + number), tmp_path / "data" / "images" / f"{number}.png")
    save(np.array([[0, 1], [4, 1]], np.uint8), tmp_path / "data" / "masks" / "0.png")
    (tmp_path / "data" / "images" / "notes.txt").write_text("no image")
    (tmp_path / "data" / "images" / ".hidden.png").write_text("no image")
    return tmp_path / "data"


def test_each_file_has_one_row_with_size_values_and_fault(root: Path, tmp_path: Path) -> None:
    truncate(root / "images" / "2.png")
    table = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    assert table.path == [*(f"images/{number}.png" for number in range(4)), "masks/0.png"]
    assert table.width == [64, 65, 0, 67, 2]
    assert table.values[4] == f"{0b10011:x}"
    assert [bool(fault) for fault in table.fault] == [False, False, True, False, False]
    assert [bool(text) for text in table.thumbnail] == [True, True, False, True, False]


def test_only_dicom_files_have_a_patient(root: Path, tmp_path: Path) -> None:
    write_dicom(root / "images" / "4.dcm", picture(4), bits=8, PatientID=" 17-b ")
    write_dicom(root / "images" / "5.dcm", picture(5), bits=8)
    table = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    assert table.patient == ["", "", "", "", "17-b", "", ""]


def test_a_subfolder_determines_the_content_of_its_files(root: Path, tmp_path: Path) -> None:
    save(np.array([[0, 9]], np.uint8), root / "1. All" / "a. Masks" / "0.png")
    table = read_manifest(scan(root, {"images": "image", "1. All/a. Masks": "foreground"}), tmp_path / "cache")
    assert table.values[table.positions["1. All/a. Masks/0.png"]] == "3"


def test_the_stored_table_equals_the_table_in_memory(root: Path, tmp_path: Path) -> None:
    first = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    assert vars(read_manifest(scan(root, FOLDERS), tmp_path / "cache")) == vars(first)
    assert [path.suffix for path in sorted((tmp_path / "cache" / "manifests").iterdir())] == [".lock", ".parquet"]


def test_removed_files_leave_the_table(root: Path, tmp_path: Path) -> None:
    read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    (root / "images" / "1.png").unlink()
    assert "images/1.png" not in read_manifest(scan(root, FOLDERS), tmp_path / "cache").path


def test_progress_counts_the_files_that_are_read(root: Path, tmp_path: Path) -> None:
    progress = []
    read_manifest(scan(root, FOLDERS), tmp_path / "cache", lambda done, total: progress.append((done, total)))
    assert progress == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    save(picture(7), root / "images" / "new.png")
    progress.clear()
    read_manifest(scan(root, FOLDERS), tmp_path / "cache", lambda done, total: progress.append((done, total)))
    assert progress == [(1, 1)]


def test_an_interrupted_reading_resumes_where_it_stopped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK", 2)

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_manifest(scan(root, FOLDERS), tmp_path / "cache", interrupt)
    progress = []
    assert len(read_manifest(scan(root, FOLDERS), tmp_path / "cache", lambda *n: progress.append(n)).path) == 5
    assert progress[-1] == (3, 3)


def test_the_same_root_read_for_other_kinds_has_another_table(root: Path, tmp_path: Path) -> None:
    read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    other = read_manifest(scan(root, {**FOLDERS, "masks": "foreground"}), tmp_path / "cache")
    assert other.values[4] == "3"


def _read(root: Path, cache: Path) -> list[str]:
    return read_manifest(scan(root, FOLDERS), cache).content


def test_concurrent_processes_read_equal_tables(root: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        tables = pool.starmap(_read, [(root, tmp_path / "cache")] * 2)
    assert tables[0] == tables[1]
    assert len(list((tmp_path / "cache" / "manifests").glob("*.parquet"))) == 1


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_thumbnails_are_robust_to_encoding_and_resizing_and_differ_between_images() -> None:
    image = picture(1, width=600, height=500)
    buffer = io.BytesIO()
    Image.fromarray(cv2.resize(image, (224, 224))).save(buffer, "JPEG", quality=60)
    again = np.asarray(Image.open(buffer))
    assert distance(thumbnail(image), thumbnail(again)) <= 6
    assert distance(thumbnail(image), thumbnail(np.dstack([image] * 3))) == 0
    assert distance(thumbnail(image), thumbnail(picture(2, width=600, height=500))) > 60


def test_a_constant_image_has_no_thumbnail() -> None:
    assert thumbnail(np.full((50, 50), 7, np.uint8)) == ""


def test_files_without_an_image_suffix_are_listed(root: Path) -> None:
    save(picture(1), root / "images" / "9.BMP")
    listing = scan(root, FOLDERS)
    assert (listing.unread, "images/9.BMP" in listing.files) == (["images/notes.txt"], True)


def test_pipes_devices_and_broken_links_are_refused_by_name_and_not_opened(root: Path) -> None:
    strange = root / "images" / "strange.png"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere.png")):
        make(strange)
        with pytest.raises(DataError, match=r"images/strange\.png (is no regular file|cannot be read)"):
            scan(root, FOLDERS)
        strange.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(strange))
        with pytest.raises(DataError, match=r"images/strange\.png is no regular file"):
            scan(root, FOLDERS)


def test_a_folder_that_links_to_its_parent_is_refused(root: Path) -> None:
    (root / "images" / "again").symlink_to(root / "images")
    with pytest.raises(DataError, match="is a link to one of its parent folders"):
        scan(root, FOLDERS)


def test_names_that_are_not_utf_8_are_refused_in_printable_form(root: Path) -> None:
    Path(os.fsdecode(bytes(root / "images") + b"/\xff.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"images/\\xff\.png has a name that is not UTF-8"):
        scan(root, FOLDERS)


def test_swapped_files_of_equal_size_and_time_are_read_again(root: Path, tmp_path: Path) -> None:
    first, second, aside = (root / "images" / name for name in ("0.png", "1.png", "aside"))
    for number, path in enumerate((first, second)):
        Image.fromarray(np.full((48, 64), 9 + number, np.uint8)).save(path)
        os.utime(path, ns=(10**18, 10**18))
    assert first.stat().st_size == second.stat().st_size
    before = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    after = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    assert before.content[:2] == after.content[1::-1]


def test_a_damaged_table_is_read_again_from_the_files(root: Path, tmp_path: Path) -> None:
    first = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    (table,) = (tmp_path / "cache" / "manifests").glob("*.parquet")
    data = table.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 20).tolist():
        table.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert vars(read_manifest(scan(root, FOLDERS), tmp_path / "cache")) == vars(first)
        assert table.read_bytes() == data


def test_a_file_with_known_content_is_not_decoded_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    (root / "images" / "1.png").chmod(0o600)
    os.link(root / "images" / "2.png", tmp_path / "second name.png")
    copied = (root / "masks" / "0.png").read_bytes()
    (root / "masks" / "0.png").unlink()
    (root / "masks" / "0.png").write_bytes(copied)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "examine", None)
        second = read_manifest(scan(root, FOLDERS), tmp_path / "cache")
    assert second.content == first.content
    assert second.values == first.values
    assert second.ctime_ns != first.ctime_ns


def test_inodes_of_64_bits_are_stored(root: Path, tmp_path: Path) -> None:
    listing = scan(root, FOLDERS)
    files = {path: (*state[:3], 2**64 - 1) for path, state in listing.files.items()}
    large = replace(listing, files=files)
    first = read_manifest(large, tmp_path / "cache")
    assert set(first.inode) == {2**64 - 1}
    assert vars(read_manifest(large, tmp_path / "cache")) == vars(first)
