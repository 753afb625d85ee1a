"""Leases, checkpoints and study folders that machines share through a bucket."""

import json
import socket
import time
from pathlib import Path

import psutil
import pytest
import torch

from study.store import folder_sync, repeating
from study.store.bucket_backend import create_mirror
from study.store.lease import LeaseHeld
from study.store.object_store import Entry, Remote
from study.store.store import Store
from study.training.checkpoint import Checkpoints, Snapshot
from tests.support.object_store import ObjectStore

DIGEST = "0123456789abcdef0123456789abcdef"


def open_store(server: ObjectStore, folder: Path, name: str) -> Store:
    return Store(create_mirror(server.uri(folder.name), folder / name))


@pytest.fixture
def store(server: ObjectStore, tmp_path: Path) -> Store:
    """The storage as this machine sees it."""
    return open_store(server, tmp_path, "this")


@pytest.fixture
def other_store(server: ObjectStore, tmp_path: Path) -> Store:
    """The same storage as another machine sees it."""
    return open_store(server, tmp_path, "other")


def is_leased(store: Store) -> bool:
    return store.is_leased(DIGEST)


def write_lease(store: Store, host: str, pid: int) -> None:
    owner = {"host": host, "pid": pid, "born": psutil.Process().create_time(), "token": "another"}
    store.backend.remote.write(f"work/{DIGEST}/claim.json", json.dumps(owner).encode())


def test_lease_is_refused_on_other_machine_until_released(store: Store, other_store: Store) -> None:
    assert not is_leased(other_store)
    with store.lease(DIGEST):
        assert is_leased(other_store)
        with pytest.raises(LeaseHeld), other_store.lease(DIGEST):
            pass
        assert not other_store.work(DIGEST).joinpath("claim.json").exists()

    assert not is_leased(other_store)
    assert store.backend.remote.entries(f"work/{DIGEST}") == {}


def test_lease_of_dead_process_on_this_host_is_ignored(store: Store) -> None:
    write_lease(store, socket.gethostname(), 2**22 + 1)

    assert not is_leased(store)


def test_lease_of_other_host_is_valid_until_stale(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lease(store, "other-host", 1)
    assert is_leased(store)
    monkeypatch.setattr("study.store.lease.STALE_SECONDS", 0.5)
    time.sleep(1.2)

    assert not is_leased(store)


def test_lease_is_renewed_periodically(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeating, "BEAT_SECONDS", 0.1)
    key = f"work/{DIGEST}/claim.json"
    with store.lease(DIGEST):
        first = store.backend.remote.entries(f"work/{DIGEST}")[key].mtime_ns
        time.sleep(1.3)
        assert store.backend.remote.entries(f"work/{DIGEST}")[key].mtime_ns > first


def open_checkpoints(store: Store) -> Checkpoints:
    return Checkpoints(work=store.work(DIGEST), copies=store.checkpoint_copies(DIGEST))


def save_checkpoint(checkpoints: Checkpoints, epoch: int) -> None:
    parts = {"network": {"weight": torch.full((8,), float(epoch))}}
    checkpoints.save(epoch, Snapshot(parts=parts, numbers={"epoch": epoch}))
    checkpoints.copies.wait()


def test_checkpoint_is_loaded_on_other_machine(store: Store, other_store: Store) -> None:
    save_checkpoint(open_checkpoints(store), 3)
    checkpoint = open_checkpoints(other_store).latest()

    assert checkpoint is not None
    assert checkpoint.numbers == {"epoch": 3}
    assert checkpoint.parts["network"]["weight"].tolist() == [3.0] * 8


def test_only_latest_checkpoint_stays_in_the_bucket(store: Store) -> None:
    checkpoints = open_checkpoints(store)
    for epoch in (1, 2, 3):
        save_checkpoint(checkpoints, epoch)
    epochs = {key.split("/")[3] for key in store.backend.remote.entries(f"work/{DIGEST}")}

    assert epochs == {"epoch-000003"}


def test_slow_upload_is_completed_before_newer_checkpoints(
    store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Remote.put

    def put_slowly(remote: Remote, file: Path, key: str) -> Entry:
        time.sleep(0.3)
        return put(remote, file, key)

    monkeypatch.setattr(Remote, "put", put_slowly)
    checkpoints = open_checkpoints(store)
    for epoch in (1, 2, 3):
        parts = {"network": {"weight": torch.zeros(8)}, "best": {"weight": torch.zeros(8)}}
        checkpoints.save(epoch, Snapshot(parts=parts, numbers={"epoch": epoch}))
    checkpoints.copies.wait()

    assert open_checkpoints(other_store).latest().numbers == {"epoch": 1}
    save_checkpoint(checkpoints, 4)
    assert [folder.name for folder in store.work(DIGEST).glob("*/epoch-*")] == ["epoch-000004"]


def test_incomplete_checkpoint_is_ignored(store: Store, other_store: Store) -> None:
    save_checkpoint(open_checkpoints(store), 2)
    store.backend.remote.write(f"work/{DIGEST}/other/epoch-000009/network.safetensors", b"half")

    assert open_checkpoints(other_store).latest().numbers == {"epoch": 2}


def test_later_local_checkpoint_is_preferred(store: Store, other_store: Store) -> None:
    save_checkpoint(open_checkpoints(other_store), 2)
    Checkpoints(work=store.work(DIGEST)).save(5, Snapshot(parts={}, numbers={"epoch": 5}))

    assert open_checkpoints(store).latest().numbers == {"epoch": 5}


def test_successful_attempt_leaves_no_checkpoint(store: Store) -> None:
    with store.lease(DIGEST):
        save_checkpoint(open_checkpoints(store), 1)

    assert store.backend.remote.entries("work") == {}


def test_study_folder_is_uploaded_while_the_driver_runs(
    store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_sync, "SECONDS", 0.1)
    folder = store.study("tiny")
    with store.uploading("tiny"):
        (folder / "search").mkdir(parents=True)
        (folder / "search" / "journal.log").write_text('{"a": 1}\n{"b"')
        (folder / "failures.jsonl").write_text("x\n")
        deadline = time.monotonic() + 20
        while not (other_store.study("tiny") / "search" / "journal.log").is_file() and time.monotonic() < deadline:
            other_store.pull("tiny")
        assert (other_store.study("tiny") / "search" / "journal.log").read_text() == '{"a": 1}\n', (
            "incomplete lines are not uploaded"
        )
        (folder / "failures.jsonl").unlink()
        (folder / "results.parquet").write_bytes(b"results")
    other_store.pull("tiny")

    assert {path.name for path in other_store.study("tiny").iterdir()} == {"search", "results.parquet"}


def test_pull_does_not_overwrite_files_of_a_local_driver(store: Store, other_store: Store) -> None:
    with store.uploading("tiny"):
        (store.study("tiny")).mkdir(parents=True)
        (store.study("tiny") / "plan.json").write_text("newer")
        other_store.backend.remote.write("studies/tiny/plan.json", b"older")
        store.pull("tiny")
        assert (store.study("tiny") / "plan.json").read_text() == "newer"
    other_store.pull("tiny")

    assert (other_store.study("tiny") / "plan.json").read_text() == "newer"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(b"1\n2\n", b"1\n2\n3 is long\n"), (b"1\n4\n", b"1\n4\n")],
    ids=["continues the stored journal", "differs from the stored journal"],
)
def test_local_journal_is_kept_only_if_it_continues_the_stored_one(
    store: Store, stored: bytes, expected: bytes
) -> None:
    journal = store.study("tiny") / "search" / "journal.log"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"1\n2\n3 is long\n")
    store.backend.remote.write("studies/tiny/search/journal.log", stored)
    store.pull("tiny")

    assert journal.read_bytes() == expected


def test_studies_are_listed_by_a_file_they_contain(store: Store, other_store: Store) -> None:
    for name in ("one", "two"):
        store.backend.remote.write(f"studies/{name}/spec.yaml", b"name: x")
    store.backend.remote.write("studies/three/plan.json", b"{}")

    assert other_store.studies("spec.yaml") == ["one", "two"]
