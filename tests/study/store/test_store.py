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


def draft(store: Store, attempt: str = "one", value: float = 1.0) -> Path:
    folder = store.work(DIGEST) / attempt / "draft"
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((64,), value)}, folder / WEIGHTS)
    (folder / "history.parquet").write_bytes(b"rows")
    return folder


def published(store: Store) -> Path:
    assert store.publish(DIGEST, draft(store), RECORD)
    return store.stage(DIGEST)


def test_published_stage_has_its_files_and_record(store: Store) -> None:
    folder = published(store)

    assert {path.name for path in folder.iterdir()} == {WEIGHTS, "history.parquet", "stage.yaml", MANIFEST}
    assert store.record(DIGEST) == RECORD
    assert store.manifest(DIGEST)["updates"] == 7
    assert store.finished() == {DIGEST}


def test_several_may_write_one_file_at_once(tmp_path: Path) -> None:
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


def test_nothing_is_finished_in_an_empty_storage(store: Store) -> None:
    assert store.finished() == frozenset()


def test_draft_is_not_finished(store: Store) -> None:
    draft(store)

    assert store.finished() == frozenset()
    assert not store.is_finished(DIGEST)


def test_second_publisher_loses_and_leaves_nothing(store: Store) -> None:
    published(store)
    late = draft(store, attempt="two", value=2.0)

    assert not store.publish(DIGEST, late, RECORD)
    assert not late.exists()
    assert float(load_file(store.weights(DIGEST))["weight"][0]) == 1.0


def test_of_many_publishers_at_once_one_wins(store: Store) -> None:
    drafts = [draft(store, attempt=str(number), value=number) for number in range(8)]
    start, won = threading.Barrier(len(drafts), timeout=20), []

    def publish(number: int) -> None:
        start.wait()
        if store.publish(DIGEST, drafts[number], RECORD):
            won.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(len(drafts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert float(load_file(store.weights(DIGEST))["weight"][0]) == won[0]
    assert not any(folder.exists() for folder in drafts)


def test_publishing_onto_a_file_is_an_error_not_a_lost_race(store: Store) -> None:
    store.stage(DIGEST).parent.mkdir(parents=True)
    store.stage(DIGEST).touch()

    with pytest.raises(OSError, match=DIGEST):
        store.publish(DIGEST, draft(store), RECORD)


def test_stage_is_published_over_a_folder_that_has_scores_only(store: Store) -> None:
    table = pa.table({"x": [1]})
    store.add_scores(DIGEST, "key", table, table)  # by a process that had found the stage before it was set aside

    assert store.publish(DIGEST, draft(store), RECORD)
    assert store.is_finished(DIGEST)
    assert not store.scored(DIGEST, "key")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink], ids=["truncated", "one byte flipped", "missing"])
def test_damaged_weights_are_noticed(store: Store, harm: Callable[[Path], None]) -> None:
    harm(published(store) / WEIGHTS)

    with pytest.raises(DamagedStageError, match=f"stage {DIGEST}: {WEIGHTS}"):
        store.verify(DIGEST)


def test_byte_that_flips_without_a_trace_in_the_time_is_noticed_when_read(store: Store) -> None:
    path = published(store) / WEIGHTS
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(DamagedStageError, match="altered"):
        store.weights(DIGEST)


def test_damaged_history_is_noticed(store: Store) -> None:
    truncate(published(store) / "history.parquet")

    with pytest.raises(DamagedStageError, match=r"history\.parquet has 1 bytes, not the 4"):
        store.verify(DIGEST)


@pytest.mark.parametrize("content", [None, "{", ""], ids=["missing", "torn", "empty"])
def test_broken_seal_is_damage(store: Store, content: str | None) -> None:
    path = published(store) / MANIFEST
    path.unlink()
    if content is not None:
        path.write_text(content)

    with pytest.raises(DamagedStageError, match="its manifest is missing"):
        store.verify(DIGEST)


def test_touched_but_equal_file_is_sound(store: Store) -> None:
    (published(store) / WEIGHTS).touch()

    store.verify(DIGEST)


def test_damaged_stage_set_aside_can_be_published_again(store: Store) -> None:
    truncate(published(store) / WEIGHTS)
    store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))

    assert store.finished() == frozenset()
    assert store.publish(DIGEST, draft(store, attempt="two"), RECORD)
    store.verify(DIGEST)
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_setting_aside_what_another_process_set_aside_is_no_error(store: Store) -> None:
    published(store)
    store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))
    store.set_aside(DamagedStageError(DIGEST, "its manifest is missing"))

    assert len(list((store.root / "damaged").iterdir())) == 1


def test_stage_without_its_weights_is_finished_and_sound(store: Store) -> None:
    published(store)
    store.drop_weights([DIGEST])

    store.verify(DIGEST)
    assert store.is_finished(DIGEST)
    assert not store.has_weights(DIGEST)
    with pytest.raises(DamagedStageError, match="not kept"):
        store.weights(DIGEST)


def test_dropping_that_was_cut_off_is_finished_by_the_next(store: Store) -> None:
    folder = published(store)
    content = (folder / WEIGHTS).read_bytes()
    store.drop_weights([DIGEST])
    (folder / WEIGHTS).write_bytes(content)  # as when killed between manifest and removal

    store.drop_weights([DIGEST])
    assert not store.has_weights(DIGEST)


def test_dropping_keeps_the_seals_of_the_other_files(store: Store) -> None:
    folder = published(store)
    store.drop_weights([DIGEST])
    truncate(folder / "history.parquet")

    with pytest.raises(DamagedStageError, match=r"history\.parquet"):
        store.verify(DIGEST)


def test_stage_published_again_keeps_the_scores_that_others_made(store: Store, tmp_path: Path) -> None:
    folder = published(store)
    scores = pa.table({"image": ["a"]})
    write_scores(folder, "other", scores, scores)
    store.drop_weights([DIGEST])
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / WEIGHTS).write_bytes(b"once more")

    store.republish(DIGEST, draft, {"updates": 1, "seconds": 1.0})

    assert store.scored(DIGEST, "other")
    assert store.weights(DIGEST).read_bytes() == b"once more"
    assert not list(store.work(DIGEST).glob("before-*"))


def test_scores_count_only_when_both_tables_are_there(store: Store) -> None:
    folder = published(store)
    assert not store.scored(DIGEST, "key")
    table = pa.table({"image": ["a"]})
    write_scores(folder, "key", table, table)

    assert store.scored(DIGEST, "key")
    store.images(DIGEST, "key").unlink()
    assert not store.scored(DIGEST, "key")


def test_scores_written_later_do_not_break_the_seal(store: Store) -> None:
    table = pa.table({"image": ["a"]})
    write_scores(published(store), "key", table, table)

    store.verify(DIGEST)


@pytest.mark.parametrize("content", [b"", b"PAR1", None], ids=["empty", "foreign", "cut"])
def test_scores_written_later_are_verified_too(store: Store, content: bytes | None) -> None:
    published(store)
    table = pa.table({"image": ["a"] * 99})
    store.add_scores(DIGEST, "key", table, table)
    path = store.scores(DIGEST, "key")
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    with pytest.raises(DamagedStageError) as damaged:
        store.scores(DIGEST, "key")
    store.set_aside(damaged.value)
    assert store.is_finished(DIGEST)
    assert not store.scored(DIGEST, "key")


def test_weights_that_another_driver_dropped_are_no_damage_of_the_stage(store: Store) -> None:
    published(store)
    table = pa.table({"image": ["a"]})
    store.add_scores(DIGEST, "key", table, table)
    store.drop_weights([DIGEST])
    with pytest.raises(DamagedStageError, match="its weights were not kept") as damaged:
        store.weights(DIGEST)
    store.set_aside(damaged.value)
    assert store.is_finished(DIGEST)
    assert store.scored(DIGEST, "key")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_read_only_storage_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    assert "allowed: a folder you may write" in str(Store(tmp_path / "storage").writing_problem())


def test_storage_that_is_a_file_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "storage").touch()

    assert "allowed: a folder you may write" in str(Store(tmp_path / "storage").writing_problem())


def test_writable_storage_is_left_as_it_was(store: Store) -> None:
    assert store.writing_problem() is None
    assert not list(store.root.iterdir())


def test_damage_is_told_across_processes() -> None:
    told = pickle.loads(pickle.dumps(DamagedStageError("abc", "its manifest is missing")))
    assert (told.digest, told.name, told.short) == ("abc", MANIFEST, "stage abc: its manifest is missing")
    assert "study run FILE" in str(told)
