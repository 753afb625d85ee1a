"""Stages in a storage folder: publishing, verification, damage, dropped weights and scores."""

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from study.store.atomic import read_json, write_json, write_table
from study.store.damage import DamagedStageError
from study.store.paths import MANIFEST, WEIGHTS
from study.store.store import Store, write_scores

DIGEST = "0123456789abcdef0123456789abcdef"
RECORD = {"updates": 7, "seconds": 1.5, "stage": "segment"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "storage")


def write_draft(store: Store, attempt: str = "one", value: float = 1.0) -> Path:
    folder = store.work(DIGEST) / attempt / "draft"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((64,), value)}, folder / WEIGHTS)
    (folder / "history.parquet").write_bytes(b"rows")
    return folder


def publish_stage(store: Store) -> Path:
    assert store.publish(DIGEST, write_draft(store), RECORD)
    return store.stage(DIGEST)


def test_published_stage_has_its_files_and_record(store: Store) -> None:
    folder = publish_stage(store)

    assert {path.name for path in folder.iterdir()} == {WEIGHTS, "history.parquet", "stage.yaml", MANIFEST}
    assert store.record(DIGEST) == RECORD
    assert store.manifest(DIGEST)["updates"] == 7
    assert store.finished() == {DIGEST}


def test_concurrent_writes_of_one_file_leave_a_complete_file(tmp_path: Path) -> None:
    tables = [pa.table({"writer": [number] * 1000}) for number in range(4)]

    def write(table: pa.Table) -> None:
        for _ in range(20):
            write_table(tmp_path / "results.parquet", table)
            write_json(tmp_path / "plan.json", table["writer"].to_pylist())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, tables))
    assert pq.read_table(tmp_path / "results.parquet") in tables
    assert len(set(read_json(tmp_path / "plan.json"))) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_empty_storage_has_no_finished_stages(store: Store) -> None:
    assert store.finished() == frozenset()


def test_draft_is_not_finished(store: Store) -> None:
    write_draft(store)

    assert store.finished() == frozenset()
    assert not store.is_finished(DIGEST)


def test_second_publish_is_rejected_and_its_draft_removed(store: Store) -> None:
    publish_stage(store)
    draft = write_draft(store, attempt="two", value=2.0)

    assert not store.publish(DIGEST, draft, RECORD)
    assert not draft.exists()
    assert float(load_file(store.weights(DIGEST))["weight"][0]) == 1.0


def test_one_of_many_concurrent_publishers_succeeds(store: Store) -> None:
    drafts = [write_draft(store, attempt=str(number), value=number) for number in range(8)]
    barrier, winners = threading.Barrier(len(drafts), timeout=20), []

    def publish(number: int) -> None:
        barrier.wait()
        if store.publish(DIGEST, drafts[number], RECORD):
            winners.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(len(drafts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(winners) == 1
    assert float(load_file(store.weights(DIGEST))["weight"][0]) == winners[0]
    assert not any(folder.exists() for folder in drafts)


def test_publish_onto_a_file_raises(store: Store) -> None:
    store.stage(DIGEST).parent.mkdir(parents=True)
    store.stage(DIGEST).touch()

    with pytest.raises(OSError, match=DIGEST):
        store.publish(DIGEST, write_draft(store), RECORD)


def test_publish_replaces_a_folder_with_scores_only(store: Store) -> None:
    table = pa.table({"x": [1]})
    store.add_scores(DIGEST, "key", table, table)  # by a process that read the stage before it was set aside

    assert store.publish(DIGEST, write_draft(store), RECORD)
    assert store.is_finished(DIGEST)
    assert not store.scored(DIGEST, "key")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip_bit, Path.unlink], ids=["truncated", "one byte flipped", "missing"])
def test_damaged_weights_are_detected(store: Store, damage: Callable[[Path], None]) -> None:
    damage(publish_stage(store) / WEIGHTS)

    with pytest.raises(DamagedStageError, match=f"stage {DIGEST}: {WEIGHTS}"):
        store.verify(DIGEST)


def test_altered_weights_with_unchanged_time_are_detected_on_read(store: Store) -> None:
    path = publish_stage(store) / WEIGHTS
    before = path.stat()
    flip_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(DamagedStageError, match="altered"):
        store.weights(DIGEST)


def test_damaged_history_is_detected(store: Store) -> None:
    truncate(publish_stage(store) / "history.parquet")

    with pytest.raises(DamagedStageError, match=r"history\.parquet has 1 bytes, not the 4"):
        store.verify(DIGEST)


@pytest.mark.parametrize("content", [None, "{", ""], ids=["missing", "torn", "empty"])
def test_broken_manifest_is_detected(store: Store, content: str | None) -> None:
    path = publish_stage(store) / MANIFEST
    path.unlink()
    if content is not None:
        path.write_text(content)

    with pytest.raises(DamagedStageError, match="its manifest is missing"):
        store.verify(DIGEST)


def test_touched_file_with_equal_content_is_valid(store: Store) -> None:
    (publish_stage(store) / WEIGHTS).touch()

    store.verify(DIGEST)


def test_damaged_stage_set_aside_can_be_published_again(store: Store) -> None:
    truncate(publish_stage(store) / WEIGHTS)
    store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))

    assert store.finished() == frozenset()
    assert store.publish(DIGEST, write_draft(store, attempt="two"), RECORD)
    store.verify(DIGEST)
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_set_aside_is_idempotent(store: Store) -> None:
    publish_stage(store)
    store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))
    store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))

    assert len(list((store.root / "damaged").iterdir())) == 1


def test_stage_with_dropped_weights_is_finished_and_valid(store: Store) -> None:
    publish_stage(store)
    store.drop_weights([DIGEST])

    store.verify(DIGEST)
    assert store.is_finished(DIGEST)
    assert not store.has_weights(DIGEST)
    with pytest.raises(DamagedStageError, match="not kept"):
        store.weights(DIGEST)


def test_interrupted_drop_is_completed_by_the_next_one(store: Store) -> None:
    folder = publish_stage(store)
    content = (folder / WEIGHTS).read_bytes()
    store.drop_weights([DIGEST])
    (folder / WEIGHTS).write_bytes(content)  # as if killed between updating the manifest and removing the file

    store.drop_weights([DIGEST])
    assert not store.has_weights(DIGEST)


def test_other_files_are_still_verified_after_weights_are_dropped(store: Store) -> None:
    folder = publish_stage(store)
    store.drop_weights([DIGEST])
    truncate(folder / "history.parquet")

    with pytest.raises(DamagedStageError, match=r"history\.parquet"):
        store.verify(DIGEST)


def test_republished_stage_keeps_scores_of_other_studies(store: Store, tmp_path: Path) -> None:
    folder = publish_stage(store)
    scores = pa.table({"image": ["a"]})
    write_scores(folder, "other", scores, scores)
    store.drop_weights([DIGEST])
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / WEIGHTS).write_bytes(b"retrained")

    store.republish(DIGEST, draft, {"updates": 1, "seconds": 1.0})

    assert store.scored(DIGEST, "other")
    assert store.weights(DIGEST).read_bytes() == b"retrained"
    assert not list(store.work(DIGEST).glob("before-*"))


def test_stage_is_scored_only_when_both_tables_exist(store: Store) -> None:
    folder = publish_stage(store)
    assert not store.scored(DIGEST, "key")
    table = pa.table({"image": ["a"]})
    write_scores(folder, "key", table, table)

    assert store.scored(DIGEST, "key")
    store.images(DIGEST, "key").unlink()
    assert not store.scored(DIGEST, "key")


def test_scores_added_later_keep_the_stage_valid(store: Store) -> None:
    table = pa.table({"image": ["a"]})
    write_scores(publish_stage(store), "key", table, table)

    store.verify(DIGEST)


@pytest.mark.parametrize("content", [b"", b"PAR1", None], ids=["empty", "foreign", "cut"])
def test_damaged_scores_are_detected(store: Store, content: bytes | None) -> None:
    publish_stage(store)
    table = pa.table({"image": ["a"] * 99})
    store.add_scores(DIGEST, "key", table, table)
    path = store.scores(DIGEST, "key")
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(DamagedStageError) as error:
        store.scores(DIGEST, "key")
    store.set_aside(error.value)
    assert store.is_finished(DIGEST)
    assert not store.scored(DIGEST, "key")


def test_weights_dropped_by_another_driver_do_not_damage_the_stage(store: Store) -> None:
    publish_stage(store)
    table = pa.table({"image": ["a"]})
    store.add_scores(DIGEST, "key", table, table)
    store.drop_weights([DIGEST])
    with pytest.raises(DamagedStageError, match="its weights were not kept") as error:
        store.weights(DIGEST)
    store.set_aside(error.value)
    assert store.is_finished(DIGEST)
    assert store.scored(DIGEST, "key")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_read_only_storage_is_reported_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    assert "allowed: a folder you may write" in str(Store(tmp_path / "storage").writing_problem())


def test_storage_path_that_is_a_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "storage").touch()

    assert "allowed: a folder you may write" in str(Store(tmp_path / "storage").writing_problem())


def test_write_check_leaves_storage_unchanged(store: Store) -> None:
    assert store.writing_problem() is None
    assert not list(store.root.iterdir())


def test_damage_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DamagedStageError("abc", "its manifest is missing")))
    assert (error.digest, error.name, error.short) == ("abc", MANIFEST, "stage abc: its manifest is missing")
    assert "study run FILE" in str(error)
