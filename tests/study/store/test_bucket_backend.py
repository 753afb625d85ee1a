"""A storage in a bucket, used by two machines that each have their own local mirror."""

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from study.diagnostics.gc import find_garbage, remove_garbage
from study.store import bucket_backend
from study.store.bucket_backend import create_mirror
from study.store.damage import DamagedStageError
from study.store.object_store import Entry, Remote, StoreUnavailable
from study.store.paths import MANIFEST, WEIGHTS
from study.store.store import Store
from tests.support.object_store import ObjectStore

DIGEST = "0123456789abcdef0123456789abcdef"
RECORD = {"updates": 7, "seconds": 1.5, "stage": "segment"}
TABLE = pa.table({"image": ["a"]})


@dataclass
class SharedStorage:
    """A prefix of the bucket that several machines use as their storage."""

    server: ObjectStore
    prefix: str
    folder: Path

    def machine(self, name: str) -> Store:
        return Store(create_mirror(self.server.uri(self.prefix), self.folder / name))

    @property
    def keys(self) -> dict[str, int]:
        return self.server.keys(self.prefix)

    def alter(self, name: str) -> None:
        """Flip a bit of a stored file."""
        key = f"{self.prefix}/stages/{DIGEST}/{name}"
        content = bytearray(self.server.read(key))
        content[-5] ^= 1
        self.server.write(key, bytes(content))


@pytest.fixture
def storage(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedStorage:
    monkeypatch.setattr(bucket_backend, "FRESH_SECONDS", 0.0)
    return SharedStorage(server, tmp_path.name, tmp_path)


@pytest.fixture
def store(storage: SharedStorage) -> Store:
    """The storage as this machine sees it."""
    return storage.machine("this")


@pytest.fixture
def other_store(storage: SharedStorage) -> Store:
    """The same storage as another machine sees it."""
    return storage.machine("other")


def write_draft(store: Store, value: float = 1.0) -> Path:
    folder = store.work(DIGEST) / str(value) / "draft"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((64,), value)}, folder / WEIGHTS)
    (folder / "history.parquet").write_bytes(b"rows of epochs")
    return folder


def publish(store: Store, value: float = 1.0) -> bool:
    return store.publish(DIGEST, write_draft(store, value), RECORD)


def test_published_stage_is_finished_on_other_machine(store: Store, other_store: Store) -> None:
    assert other_store.finished() == frozenset()
    assert publish(store)

    assert store.finished() == other_store.finished() == {DIGEST}
    assert other_store.is_finished(DIGEST)
    assert other_store.record(DIGEST) == RECORD
    assert other_store.weights(DIGEST).read_bytes() == store.weights(DIGEST).read_bytes()


def test_weights_are_downloaded_again_after_local_copy_is_discarded(store: Store) -> None:
    publish(store)
    content = store.weights(DIGEST).read_bytes()
    store.backend.discard_copy(DIGEST, WEIGHTS)

    assert not (store.stage(DIGEST) / WEIGHTS).exists()
    assert store.has_weights(DIGEST)
    assert store.weights(DIGEST).read_bytes() == content


def test_stage_published_within_listing_cache_lifetime_can_be_read(
    store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_backend, "FRESH_SECONDS", 60.0)
    assert not other_store.is_finished(DIGEST)
    publish(store)

    assert other_store.record(DIGEST) == RECORD


def test_downloaded_weights_are_not_downloaded_again(storage: SharedStorage, store: Store, other_store: Store) -> None:
    publish(store)
    inode = other_store.weights(DIGEST).stat().st_ino
    other_store.verify(DIGEST)

    assert other_store.weights(DIGEST).stat().st_ino == inode
    assert store.weights(DIGEST).parent == store.stage(DIGEST), "the machine that trained the stage keeps its own copy"


def test_files_without_manifest_are_not_a_finished_stage(storage: SharedStorage, store: Store) -> None:
    storage.server.write(f"{storage.prefix}/stages/{DIGEST}/{WEIGHTS}", b"half")

    assert store.finished() == frozenset()
    assert not store.is_finished(DIGEST)


def test_manifest_is_uploaded_last(storage: SharedStorage, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[str] = []
    put = bucket_backend.Remote.put

    def record_upload(self: Remote, file: Path, key: str) -> Entry:
        uploaded.append(file.name)
        return put(self, file, key)

    monkeypatch.setattr(bucket_backend.Remote, "put", record_upload)
    publish(store)

    assert set(uploaded[:-1]) == {WEIGHTS, "history.parquet", "stage.yaml"}
    assert uploaded[-1] == MANIFEST


def test_second_publish_is_rejected_and_changes_nothing(
    storage: SharedStorage, store: Store, other_store: Store
) -> None:
    publish(store)
    before = storage.keys

    assert not publish(other_store, 2.0)
    assert storage.keys == before
    assert other_store.weights(DIGEST).read_bytes() == store.weights(DIGEST).read_bytes()


@pytest.mark.parametrize("name", [WEIGHTS, "history.parquet"])
def test_altered_object_of_equal_size_is_detected(
    storage: SharedStorage, store: Store, other_store: Store, name: str
) -> None:
    publish(store)
    other_store.weights(DIGEST)
    manifest_time = storage.keys[f"stages/{DIGEST}/{MANIFEST}"]
    # Modification times of the object store have a resolution of one second.
    time.sleep(max(0.0, manifest_time / 1e9 + 1.1 - time.time()))
    storage.alter(name)

    for machine in (store, other_store, storage.machine("third")):
        machine.finished()
        with pytest.raises(DamagedStageError, match=f"stage {DIGEST}: {name} was altered after it was written"):
            machine.verify(DIGEST)


def test_weights_altered_in_the_same_second_as_the_manifest_are_detected_on_read(
    storage: SharedStorage, store: Store
) -> None:
    publish(store)
    storage.alter(WEIGHTS)

    with pytest.raises(DamagedStageError, match=f"{WEIGHTS} was altered"):
        storage.machine("third").weights(DIGEST)


def test_truncated_or_missing_object_is_detected(storage: SharedStorage, store: Store, other_store: Store) -> None:
    publish(store)
    storage.server.write(f"{storage.prefix}/stages/{DIGEST}/{WEIGHTS}", b"short")
    with pytest.raises(DamagedStageError, match=r"has 5 bytes, not the \d+ that were written"):
        other_store.verify(DIGEST)

    other_store.backend.remote.delete(f"stages/{DIGEST}/{WEIGHTS}")
    other_store.backend.refresh(DIGEST)
    with pytest.raises(DamagedStageError, match="is missing"):
        other_store.verify(DIGEST)


def test_damaged_mirror_file_is_downloaded_again(store: Store, other_store: Store) -> None:
    publish(store)
    content = other_store.weights(DIGEST).read_bytes()
    (other_store.stage(DIGEST) / WEIGHTS).write_bytes(content[:-1])

    assert other_store.weights(DIGEST).read_bytes() == content


def test_damaged_stage_set_aside_can_be_published_again(
    storage: SharedStorage, store: Store, other_store: Store
) -> None:
    publish(store)
    storage.alter(WEIGHTS)
    other_store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))

    assert store.finished() == frozenset()
    assert publish(store, 2.0)
    assert other_store.weights(DIGEST).read_bytes() == store.weights(DIGEST).read_bytes()
    assert len({key.split("/")[1] for key in storage.keys if key.startswith("damaged/")}) == 1


def test_dropped_weights_are_removed_on_all_machines_and_stage_stays_valid(
    storage: SharedStorage, store: Store, other_store: Store
) -> None:
    publish(store)
    other_store.weights(DIGEST)
    store.drop_weights([DIGEST])

    for machine in (store, other_store):
        assert machine.finished() == {DIGEST}
        assert not machine.has_weights(DIGEST)
        machine.verify(DIGEST)
        with pytest.raises(DamagedStageError, match="not kept"):
            machine.weights(DIGEST)


def test_republished_stage_keeps_scores_of_other_machines(
    storage: SharedStorage, store: Store, other_store: Store
) -> None:
    publish(store)
    other_store.add_scores(DIGEST, "other", TABLE, TABLE)
    store.drop_weights([DIGEST])
    store.republish(DIGEST, write_draft(store, 2.0), RECORD)

    assert other_store.scored(DIGEST, "other")
    assert other_store.weights(DIGEST).read_bytes() == store.weights(DIGEST).read_bytes()
    other_store.verify(DIGEST)


def test_added_scores_are_read_on_other_machine(store: Store, other_store: Store) -> None:
    publish(store)
    assert not other_store.scored(DIGEST, "key")
    store.add_scores(DIGEST, "key", TABLE, TABLE)

    assert other_store.scored(DIGEST, "key")
    assert other_store.scorings(DIGEST) == ["key"]
    assert other_store.scores(DIGEST, "key").read_bytes() == store.scores(DIGEST, "key").read_bytes()
    other_store.verify(DIGEST)


def test_publish_retries_until_server_responds(storage: SharedStorage, store: Store) -> None:
    folder = write_draft(store)
    storage.server.stop()
    threading.Timer(1.0, storage.server.start).start()

    assert store.publish(DIGEST, folder, RECORD)
    assert store.finished() == {DIGEST}


@pytest.mark.slow  # the client library retries for some seconds
def test_stage_that_could_not_be_uploaded_is_uploaded_later(
    storage: SharedStorage, store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.backend, "remote", store.backend.remote.without_retries())
    folder = write_draft(store)
    storage.server.stop()
    try:
        with pytest.raises(OSError, match=r"is trained but .* did not take it"):
            store.publish(DIGEST, folder, RECORD)
    finally:
        storage.server.start()
    assert other_store.finished() == frozenset()
    store.backend.send_waiting()

    assert other_store.finished() == {DIGEST}
    other_store.weights(DIGEST)
    assert not [path for path in (store.root / "waiting").iterdir() if path.is_dir()]


def test_truncated_stage_waiting_for_upload_is_discarded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise StoreUnavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(store.backend, "_send", refuse)
        with pytest.raises(OSError, match="nothing is trained twice"):
            publish(store)
    os.truncate(store.root / "waiting" / DIGEST / WEIGHTS, 10)
    store.backend.send_waiting()

    assert store.finished() == frozenset()
    assert publish(store, 2.0)


def test_lost_mirror_is_rebuilt(storage: SharedStorage, store: Store) -> None:
    publish(store)
    shutil.rmtree(store.root)

    assert storage.machine("this").weights(DIGEST).is_file()


@pytest.mark.parametrize("name", ["..", "../x", "/x", "a\\b", ""])
def test_name_that_leaves_the_storage_is_rejected(store: Store, name: str) -> None:
    for call in (store.stage, store.work, store.study, store.is_finished):
        with pytest.raises(ValueError, match="allowed"):
            call(name)


def test_file_names_in_forged_manifest_do_not_leave_the_storage(
    storage: SharedStorage, store: Store, tmp_path: Path
) -> None:
    forged = b'{"updates": 1, "seconds": 1, "files": {"../../../evil": {"bytes": 4, "mtime_ns": 0, "blake2b": "x"}}}'
    storage.server.write(f"{storage.prefix}/stages/{DIGEST}/{MANIFEST}", forged)
    storage.server.write(f"{storage.prefix}/evil", b"evil")

    with pytest.raises(DamagedStageError, match="is missing"):
        store.verify(DIGEST)
    assert not list(tmp_path.rglob("evil"))


def test_garbage_is_found_and_removed(storage: SharedStorage, store: Store, other_store: Store) -> None:
    publish(store)
    garbage = find_garbage(other_store)
    assert [item.folder for item in garbage] == [f"stages/{DIGEST}"]
    assert garbage[0].bytes == sum(path.stat().st_size for path in store.stage(DIGEST).iterdir())
    remove_garbage(other_store, garbage)

    assert store.finished() == frozenset()
    assert not storage.keys


def test_stage_planned_by_any_study_is_not_garbage(storage: SharedStorage, store: Store) -> None:
    publish(store)
    storage.server.write(f"{storage.prefix}/studies/one/plan.json", f'{{"stages": {{"{DIGEST}": "segment"}}}}'.encode())

    assert find_garbage(store) == []
