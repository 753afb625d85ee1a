"""One storage on an object store, seen from two machines: two mirrors in caches of their own."""

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
class Place:
    """A prefix of its own, and any number of machines."""

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
def place(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(bucket_backend, "FRESH_SECONDS", 0.0)
    return Place(server, tmp_path.name, tmp_path)


@pytest.fixture
def here(place: Place) -> Store:
    return place.machine("here")


@pytest.fixture
def there(place: Place) -> Store:
    return place.machine("there")


def draft(store: Store, value: float = 1.0) -> Path:
    folder = store.work(DIGEST) / str(value) / "draft"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((64,), value)}, folder / WEIGHTS)
    (folder / "history.parquet").write_bytes(b"rows of epochs")
    return folder


def publish(store: Store, value: float = 1.0) -> bool:
    return store.publish(DIGEST, draft(store, value), RECORD)


def test_stage_published_here_is_finished_there(here: Store, there: Store) -> None:
    assert there.finished() == frozenset()
    assert publish(here)

    assert here.finished() == there.finished() == {DIGEST}
    assert there.is_finished(DIGEST)
    assert there.record(DIGEST) == RECORD
    assert there.weights(DIGEST).read_bytes() == here.weights(DIGEST).read_bytes()


def test_weights_are_forgotten_here_and_fetched_again_where_they_are_asked_for(here: Store) -> None:
    publish(here)
    content = here.weights(DIGEST).read_bytes()
    here.backend.discard_copy(DIGEST, WEIGHTS)

    assert not (here.stage(DIGEST) / WEIGHTS).exists()
    assert here.has_weights(DIGEST)
    assert here.weights(DIGEST).read_bytes() == content


def test_stage_published_a_moment_ago_can_be_read(here: Store, there: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_backend, "FRESH_SECONDS", 60.0)
    assert not there.is_finished(DIGEST)
    publish(here)

    assert there.record(DIGEST) == RECORD


def test_what_was_fetched_is_not_fetched_again(place: Place, here: Store, there: Store) -> None:
    publish(here)
    inode = there.weights(DIGEST).stat().st_ino
    there.verify(DIGEST)

    assert there.weights(DIGEST).stat().st_ino == inode
    assert here.weights(DIGEST).parent == here.stage(DIGEST), "the one who trained it has it"


def test_files_without_a_seal_are_no_stage(place: Place, here: Store) -> None:
    place.server.write(f"{place.prefix}/stages/{DIGEST}/{WEIGHTS}", b"half")

    assert here.finished() == frozenset()
    assert not here.is_finished(DIGEST)


def test_seal_is_stored_last(place: Place, here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    put = bucket_backend.Remote.put

    def noted(self: Remote, file: Path, key: str) -> Entry:
        sent.append(file.name)
        return put(self, file, key)

    monkeypatch.setattr(bucket_backend.Remote, "put", noted)
    publish(here)

    assert set(sent[:-1]) == {WEIGHTS, "history.parquet", "stage.yaml"}
    assert sent[-1] == MANIFEST


def test_second_publisher_loses_and_changes_nothing(place: Place, here: Store, there: Store) -> None:
    publish(here)
    before = place.keys

    assert not publish(there, 2.0)
    assert place.keys == before
    assert there.weights(DIGEST).read_bytes() == here.weights(DIGEST).read_bytes()


@pytest.mark.parametrize("name", [WEIGHTS, "history.parquet"])
def test_altered_object_is_noticed_though_its_size_is_the_same(
    place: Place, here: Store, there: Store, name: str
) -> None:
    publish(here)
    there.weights(DIGEST)
    sealed = place.keys[f"stages/{DIGEST}/{MANIFEST}"]
    time.sleep(max(0.0, sealed / 1e9 + 1.1 - time.time()))  # the store tells whole seconds only
    place.alter(name)

    for store in (here, there, place.machine("third")):
        store.finished()
        with pytest.raises(DamagedStageError, match=f"stage {DIGEST}: {name} was altered after it was written"):
            store.verify(DIGEST)


def test_weights_altered_in_the_second_of_their_seal_are_noticed_when_read(place: Place, here: Store) -> None:
    publish(here)
    place.alter(WEIGHTS)

    with pytest.raises(DamagedStageError, match=f"{WEIGHTS} was altered"):
        place.machine("third").weights(DIGEST)


def test_object_that_was_cut_off_or_lost_is_noticed(place: Place, here: Store, there: Store) -> None:
    publish(here)
    place.server.write(f"{place.prefix}/stages/{DIGEST}/{WEIGHTS}", b"short")
    with pytest.raises(DamagedStageError, match=r"has 5 bytes, not the \d+ that were written"):
        there.verify(DIGEST)

    there.backend.remote.delete(f"stages/{DIGEST}/{WEIGHTS}")
    there.backend.refresh(DIGEST)
    with pytest.raises(DamagedStageError, match="is missing"):
        there.verify(DIGEST)


def test_file_damaged_in_the_mirror_is_fetched_again(here: Store, there: Store) -> None:
    publish(here)
    content = there.weights(DIGEST).read_bytes()
    (there.stage(DIGEST) / WEIGHTS).write_bytes(content[:-1])

    assert there.weights(DIGEST).read_bytes() == content


def test_damaged_stage_set_aside_can_be_published_again(place: Place, here: Store, there: Store) -> None:
    publish(here)
    place.alter(WEIGHTS)
    there.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))

    assert here.finished() == frozenset()
    assert publish(here, 2.0)
    assert there.weights(DIGEST).read_bytes() == here.weights(DIGEST).read_bytes()
    assert len({key.split("/")[1] for key in place.keys if key.startswith("damaged/")}) == 1


def test_dropped_weights_are_gone_everywhere_and_the_stage_is_sound(place: Place, here: Store, there: Store) -> None:
    publish(here)
    there.weights(DIGEST)
    here.drop_weights([DIGEST])

    for store in (here, there):
        assert store.finished() == {DIGEST}
        assert not store.has_weights(DIGEST)
        store.verify(DIGEST)
        with pytest.raises(DamagedStageError, match="not kept"):
            store.weights(DIGEST)


def test_stage_published_again_keeps_the_scores_that_others_made(place: Place, here: Store, there: Store) -> None:
    publish(here)
    there.add_scores(DIGEST, "other", TABLE, TABLE)
    here.drop_weights([DIGEST])
    here.republish(DIGEST, draft(here, 2.0), RECORD)

    assert there.scored(DIGEST, "other")
    assert there.weights(DIGEST).read_bytes() == here.weights(DIGEST).read_bytes()
    there.verify(DIGEST)


def test_scores_added_here_are_read_there(here: Store, there: Store) -> None:
    publish(here)
    assert not there.scored(DIGEST, "key")
    here.add_scores(DIGEST, "key", TABLE, TABLE)

    assert there.scored(DIGEST, "key")
    assert there.scorings(DIGEST) == ["key"]
    assert there.scores(DIGEST, "key").read_bytes() == here.scores(DIGEST, "key").read_bytes()
    there.verify(DIGEST)


def test_store_that_is_silent_for_a_while_gets_the_stage_once_it_answers(place: Place, here: Store) -> None:
    folder = draft(here)
    place.server.stop()
    threading.Timer(1.0, place.server.start).start()

    assert here.publish(DIGEST, folder, RECORD)
    assert here.finished() == {DIGEST}


@pytest.mark.slow  # the library itself tries for some seconds
def test_stage_that_could_not_be_stored_waits_and_goes_there_later(
    place: Place, here: Store, there: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.backend, "remote", here.backend.remote.without_retries())
    folder = draft(here)
    place.server.stop()
    try:
        with pytest.raises(OSError, match=r"is trained but .* did not take it"):
            here.publish(DIGEST, folder, RECORD)
    finally:
        place.server.start()
    assert there.finished() == frozenset()
    here.backend.send_waiting()

    assert there.finished() == {DIGEST}
    there.weights(DIGEST)
    assert not [path for path in (here.root / "waiting").iterdir() if path.is_dir()]


def test_stage_that_was_cut_off_while_it_waited_is_given_up(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise StoreUnavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(here.backend, "_send", refuse)
        with pytest.raises(OSError, match="nothing is trained twice"):
            publish(here)
    os.truncate(here.root / "waiting" / DIGEST / WEIGHTS, 10)
    here.backend.send_waiting()

    assert here.finished() == frozenset()
    assert publish(here, 2.0)


def test_mirror_may_be_lost(place: Place, here: Store) -> None:
    publish(here)
    shutil.rmtree(here.root)

    assert place.machine("here").weights(DIGEST).is_file()


@pytest.mark.parametrize("name", ["..", "../x", "/x", "a\\b", ""])
def test_no_name_leads_out_of_the_storage(here: Store, name: str) -> None:
    for call in (here.stage, here.work, here.study, here.is_finished):
        with pytest.raises(ValueError, match="allowed"):
            call(name)


def test_names_in_a_forged_seal_lead_nowhere(place: Place, here: Store, tmp_path: Path) -> None:
    forged = b'{"updates": 1, "seconds": 1, "files": {"../../../evil": {"bytes": 4, "mtime_ns": 0, "blake2b": "x"}}}'
    place.server.write(f"{place.prefix}/stages/{DIGEST}/{MANIFEST}", forged)
    place.server.write(f"{place.prefix}/evil", b"evil")

    with pytest.raises(DamagedStageError, match="is missing"):
        here.verify(DIGEST)
    assert not list(tmp_path.rglob("evil"))


def test_garbage_is_found_and_removed_in_the_storage(place: Place, here: Store, there: Store) -> None:
    publish(here)
    found = find_garbage(there)
    assert [one.folder for one in found] == [f"stages/{DIGEST}"]
    assert found[0].bytes == sum(path.stat().st_size for path in here.stage(DIGEST).iterdir())
    remove_garbage(there, found)

    assert here.finished() == frozenset()
    assert not place.keys


def test_what_any_study_plans_with_is_no_garbage(place: Place, here: Store) -> None:
    publish(here)
    place.server.write(f"{place.prefix}/studies/one/plan.json", f'{{"stages": {{"{DIGEST}": "segment"}}}}'.encode())

    assert find_garbage(here) == []
