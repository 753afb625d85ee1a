"""Published initial weights are stored once in a shared storage and read from it where the hub is unreachable."""

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

NAMES = ("resnet18", "imagenet")
WEIGHTS = published_weights(*NAMES)
UNPINNED = published_weights("tu-resnet18", "imagenet")
"""Weights that are identified by their content, not by a revision."""
CONTENTS = [Content(sha256=letter * 64, commit=letter * 40) for letter in "ab"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local hub cache that contains the weights; the hub itself is unreachable."""
    folder = tmp_path / "hub" / f"models--{WEIGHTS.repository.replace('/', '--')}" / "snapshots" / WEIGHTS.revision
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(b"weights")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def open_store(server: ObjectStore, folder: Path, name: str) -> Store:
    return Store(create_mirror(server.uri(folder.name), folder / name))


@pytest.mark.usefixtures("hub")
def test_weights_stored_by_one_machine_are_read_by_another(server: ObjectStore, tmp_path: Path) -> None:
    store, other_store = (open_store(server, tmp_path, name) for name in ("this", "other"))
    assert stored_weights(other_store, WEIGHTS, None) is None
    store_weights(store, {WEIGHTS: None})
    file = stored_weights(other_store, WEIGHTS, None)

    assert file is not None
    assert file.read_bytes() == b"weights"
    assert other_store.root in file.parents


def test_required_weights_include_those_of_search_candidates(tmp_path: Path) -> None:
    changes = {"compare.backbone": ["resnet18"], "compare.initial_weights": ["imagenet"], "compare.pathway": ["none"]}
    plan, store = planned(searched(changes), tmp_path, tmp_path / "cache"), Store(tmp_path)
    pending = pending_stages(plan, store)

    assert not pending.stages
    assert pretrained_weights(plan, pending, store) == [NAMES]


@pytest.mark.usefixtures("hub")
def test_weights_are_stored_once(server: ObjectStore, tmp_path: Path) -> None:
    store_weights(open_store(server, tmp_path, "this"), {WEIGHTS: None})
    before = server.keys(tmp_path.name)
    store_weights(open_store(server, tmp_path, "other"), {WEIGHTS: None})

    assert server.keys(tmp_path.name) == before
    assert [key.rpartition("/")[2] for key in before] == [hashlib.sha256(b"weights").hexdigest() + ".safetensors"]


@pytest.mark.usefixtures("hub")
def test_altered_weights_in_the_storage_are_rejected(server: ObjectStore, tmp_path: Path) -> None:
    store_weights(open_store(server, tmp_path, "this"), {WEIGHTS: None})
    (key,) = server.keys(tmp_path.name)
    server.write(f"{tmp_path.name}/{key}", b"other weights")

    with pytest.raises(AlteredFileError, match=r"was altered after it was written; allowed: .*; remove it"):
        stored_weights(open_store(server, tmp_path, "other"), WEIGHTS, None)


@pytest.mark.usefixtures("hub")
def test_weights_are_stored_in_a_shared_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    store_weights(store, {WEIGHTS: None})

    assert stored_weights(store, WEIGHTS, None) is not None


@pytest.mark.usefixtures("hub")
def test_weights_stored_by_an_earlier_version_are_read_and_verified(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "runs"), tmp_path / "runs" / "weights" / WEIGHTS.key
    folder.mkdir(parents=True)
    file = folder / f"{hashlib.blake2b(b'weights').hexdigest()[:32]}.safetensors"
    file.write_bytes(b"weights")
    assert stored_weights(store, WEIGHTS, cached_content(WEIGHTS)) == file
    file.write_bytes(b"other")
    with pytest.raises(AlteredFileError, match=r"was altered after it was written; allowed: .*; remove it"):
        stored_weights(store, WEIGHTS, cached_content(WEIGHTS))


def test_first_recorded_content_is_kept(server: ObjectStore, tmp_path: Path) -> None:
    store, other_store = (open_store(server, tmp_path, name) for name in ("this", "other"))
    assert recorded_content(store, UNPINNED) is None
    record_contents(store, {UNPINNED: CONTENTS[0], WEIGHTS: None})
    with pytest.raises(
        ConfigError, match=r"another run has recorded .* \(SHA-256 a+\); allowed: .*; run the study again"
    ):
        record_contents(other_store, {UNPINNED: CONTENTS[1]})
    record_contents(other_store, {UNPINNED: CONTENTS[0]})
    assert recorded_content(store, UNPINNED) == recorded_content(other_store, UNPINNED) == CONTENTS[0]
    assert recorded_content(store, WEIGHTS) is None


def test_one_of_several_concurrent_records_succeeds(tmp_path: Path) -> None:
    store, barrier = Store(tmp_path), threading.Barrier(8)

    def record(number: int) -> str | None:
        content = Content(sha256=f"{number:x}" * 64, commit=f"{number:x}" * 40)
        barrier.wait()
        try:
            record_contents(store, {UNPINNED: content})
        except ConfigError:
            return None
        return content.sha256

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(record, range(8)))
    (winner,) = filter(None, outcomes)
    recorded = recorded_content(store, UNPINNED)
    assert recorded is not None
    assert recorded.sha256 == winner
    assert [file.name for file in (tmp_path / "weights" / UNPINNED.key).iterdir()] == ["content.json"]


def test_content_record_in_bucket_replaces_outdated_local_copy(server: ObjectStore, tmp_path: Path) -> None:
    store, other_store = (open_store(server, tmp_path, name) for name in ("this", "other"))
    record_contents(store, {UNPINNED: CONTENTS[0]})
    (key,) = server.keys(tmp_path.name)
    (tmp_path / "x").write_bytes(b"other")
    other_store.backend.create_file(tmp_path / "x", key)
    assert recorded_content(other_store, UNPINNED) == CONTENTS[0]


def test_unwritable_weights_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"")
    assert "weights cannot be written" in str(Store(tmp_path).writing_problem())


def test_only_file_with_expected_content_is_read(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "runs"), tmp_path / "runs" / "weights" / UNPINNED.key
    folder.mkdir(parents=True)
    for content in (b"earlier", b"later"):
        (folder / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    expected = Content(sha256=hashlib.sha256(b"later").hexdigest(), commit="a" * 40)
    file = stored_weights(store, UNPINNED, expected)
    assert file is not None
    assert file.read_bytes() == b"later"
    assert stored_weights(store, UNPINNED, CONTENTS[0]) is None


def test_altered_content_record_is_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record_contents(store, {UNPINNED: CONTENTS[0]})
    (file,) = (tmp_path / "weights" / UNPINNED.key).iterdir()
    file.write_text(file.read_text().replace("b", "c"))
    with pytest.raises(ConfigError, match="altered"):
        recorded_content(store, UNPINNED)
