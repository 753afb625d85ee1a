"""Published initial weights go into a shared storage once, and are read from there where there is no hub."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.catalog.hub_cache import WEIGHTS_FILE, cached_content
from models.catalog.published import Content
from models.catalog.registry import published_weights
from study.errors import ConfigError
from study.planning.pending import pending_stages
from study.planning.pretrained import pretrained_weights
from study.store.atomic import AlteredFileError
from study.store.bucket_backend import create_mirror
from study.store.pretrained import record_contents, recorded_content, store_weights, stored_weights
from study.store.store import Store
from tests.support.object_store import ObjectStore
from tests.support.searched import planned, searched

NAMED = ("resnet18", "imagenet")
WEIGHTS = published_weights(*NAMED)
MOVING = published_weights("tu-resnet18", "imagenet")
"""Weights whose content identifies them, of a revision that may change or that the table states the hash of."""
CONTENTS = [Content(sha256=letter * 64, commit=letter * 40) for letter in "ab"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache with these weights, copied without links, and no hub behind it."""
    folder = tmp_path / "hub" / f"models--{WEIGHTS.repository.replace('/', '--')}" / "snapshots" / WEIGHTS.revision
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(b"weights")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def machine(server: ObjectStore, folder: Path, name: str) -> Store:
    return Store(create_mirror(server.uri(folder.name), folder / name))


@pytest.mark.usefixtures("hub")
def test_weights_that_one_machine_keeps_are_there_for_another(server: ObjectStore, tmp_path: Path) -> None:
    here, there = (machine(server, tmp_path, name) for name in ("here", "there"))
    assert stored_weights(there, WEIGHTS, None) is None
    store_weights(here, {WEIGHTS: None})
    found = stored_weights(there, WEIGHTS, None)

    assert found is not None
    assert found.read_bytes() == b"weights"
    assert there.root in found.parents


def test_weights_that_only_candidates_start_from_are_among_those_needed(tmp_path: Path) -> None:
    changes = {"compare.backbone": ["resnet18"], "compare.initial_weights": ["imagenet"], "compare.pathway": ["none"]}
    plan, store = planned(searched(changes), tmp_path, tmp_path / "cache"), Store(tmp_path)
    left = pending_stages(plan, store)

    assert not left.stages
    assert pretrained_weights(plan, left, store) == [NAMED]


@pytest.mark.usefixtures("hub")
def test_weights_are_kept_once(server: ObjectStore, tmp_path: Path) -> None:
    store_weights(machine(server, tmp_path, "here"), {WEIGHTS: None})
    before = server.keys(tmp_path.name)
    store_weights(machine(server, tmp_path, "there"), {WEIGHTS: None})

    assert server.keys(tmp_path.name) == before
    assert [key.rpartition("/")[2] for key in before] == [hashlib.sha256(b"weights").hexdigest() + ".safetensors"]


@pytest.mark.usefixtures("hub")
def test_weights_that_were_altered_in_the_storage_are_refused(server: ObjectStore, tmp_path: Path) -> None:
    store_weights(machine(server, tmp_path, "here"), {WEIGHTS: None})
    (key,) = server.keys(tmp_path.name)
    server.write(f"{tmp_path.name}/{key}", b"other weights")

    with pytest.raises(AlteredFileError, match=r"was altered after it was written; allowed: .*; remove it"):
        stored_weights(machine(server, tmp_path, "there"), WEIGHTS, None)


@pytest.mark.usefixtures("hub")
def test_a_folder_that_nodes_share_keeps_them_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store_weights(store, {WEIGHTS: None})

    assert stored_weights(store, WEIGHTS, None) is not None


@pytest.mark.usefixtures("hub")
def test_weights_of_an_earlier_version_are_read_and_verified(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "runs"), tmp_path / "runs" / "weights" / WEIGHTS.key
    folder.mkdir(parents=True)
    file = folder / f"{hashlib.blake2b(b'weights').hexdigest()[:32]}.safetensors"
    file.write_bytes(b"weights")
    assert stored_weights(store, WEIGHTS, cached_content(WEIGHTS)) == file
    file.write_bytes(b"other")
    with pytest.raises(AlteredFileError, match=r"was altered after it was written; allowed: .*; remove it"):
        stored_weights(store, WEIGHTS, cached_content(WEIGHTS))


def test_a_storage_keeps_the_content_that_was_recorded_first(server: ObjectStore, tmp_path: Path) -> None:
    here, there = (machine(server, tmp_path, name) for name in ("here", "there"))
    assert recorded_content(here, MOVING) is None
    record_contents(here, {MOVING: CONTENTS[0], WEIGHTS: None})
    with pytest.raises(
        ConfigError, match=r"another run has recorded .* \(SHA-256 a+\); allowed: .*; run the study again"
    ):
        record_contents(there, {MOVING: CONTENTS[1]})
    record_contents(there, {MOVING: CONTENTS[0]})
    assert recorded_content(here, MOVING) == recorded_content(there, MOVING) == CONTENTS[0]
    assert recorded_content(here, WEIGHTS) is None


def test_of_processes_that_record_different_contents_at_once_one_goes_on(tmp_path: Path) -> None:
    store, barrier = Store(tmp_path), threading.Barrier(8)

    def record(number: int) -> str | None:
        content = Content(sha256=f"{number:x}" * 64, commit=f"{number:x}" * 40)
        barrier.wait()
        try:
            record_contents(store, {MOVING: content})
        except ConfigError:
            return None
        return content.sha256

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(record, range(8)))
    (first,) = filter(None, outcomes)
    recorded = recorded_content(store, MOVING)
    assert recorded is not None
    assert recorded.sha256 == first
    assert [file.name for file in (tmp_path / "weights" / MOVING.key).iterdir()] == ["content.json"]


def test_a_record_in_a_bucket_replaces_an_outdated_local_copy(server: ObjectStore, tmp_path: Path) -> None:
    here, there = (machine(server, tmp_path, name) for name in ("here", "there"))
    record_contents(here, {MOVING: CONTENTS[0]})
    (key,) = server.keys(tmp_path.name)
    (tmp_path / "x").write_bytes(b"other")
    there.backend.create_file(tmp_path / "x", key)
    assert recorded_content(there, MOVING) == CONTENTS[0]


def test_a_folder_of_weights_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"")
    assert "weights cannot be written" in str(Store(tmp_path).writing_problem())


def test_only_the_file_with_the_content_is_taken_from_a_storage(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "runs"), tmp_path / "runs" / "weights" / MOVING.key
    folder.mkdir(parents=True)
    for content in (b"earlier", b"later"):
        (folder / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    wanted = Content(sha256=hashlib.sha256(b"later").hexdigest(), commit="a" * 40)
    file = stored_weights(store, MOVING, wanted)
    assert file is not None
    assert file.read_bytes() == b"later"
    assert stored_weights(store, MOVING, CONTENTS[0]) is None


def test_an_altered_record_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record_contents(store, {MOVING: CONTENTS[0]})
    (file,) = (tmp_path / "weights" / MOVING.key).iterdir()
    file.write_text(file.read_text().replace("b", "c"))
    with pytest.raises(ConfigError, match="altered"):
        recorded_content(store, MOVING)
