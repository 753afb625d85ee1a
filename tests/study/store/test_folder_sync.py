"""What attempts and drivers on several machines share through an object store: claims, checkpoints, studies."""

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


def machine(server: ObjectStore, folder: Path, name: str) -> Store:
    return Store(create_mirror(server.uri(folder.name), folder / name))


@pytest.fixture
def here(server: ObjectStore, tmp_path: Path) -> Store:
    return machine(server, tmp_path, "here")


@pytest.fixture
def there(server: ObjectStore, tmp_path: Path) -> Store:
    return machine(server, tmp_path, "there")


def held(store: Store) -> bool:
    return store.is_leased(DIGEST)


def written_claim(store: Store, host: str, pid: int) -> None:
    me = {"host": host, "pid": pid, "born": psutil.Process().create_time(), "token": "another"}
    store.backend.remote.write(f"work/{DIGEST}/claim.json", json.dumps(me).encode())


def test_claim_held_here_is_refused_there_and_freed(here: Store, there: Store) -> None:
    assert not held(there)
    with here.lease(DIGEST):
        assert held(there)
        with pytest.raises(LeaseHeld), there.lease(DIGEST):
            pass
        assert not there.work(DIGEST).joinpath("claim.json").exists()

    assert not held(there)
    assert here.backend.remote.entries(f"work/{DIGEST}") == {}


def test_claim_of_a_dead_process_of_this_host_does_not_count(here: Store) -> None:
    written_claim(here, socket.gethostname(), 2**22 + 1)

    assert not held(here)


def test_claim_of_another_host_counts_while_it_beats(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written_claim(here, "elsewhere", 1)
    assert held(here)
    monkeypatch.setattr("study.store.lease.STALE_SECONDS", 0.5)
    time.sleep(1.2)

    assert not held(here)


def test_claim_is_beaten(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeating, "BEAT_SECONDS", 0.1)
    key = f"work/{DIGEST}/claim.json"
    with here.lease(DIGEST):
        first = here.backend.remote.entries(f"work/{DIGEST}")[key].mtime_ns
        time.sleep(1.3)
        assert here.backend.remote.entries(f"work/{DIGEST}")[key].mtime_ns > first


def checkpoints(store: Store) -> Checkpoints:
    return Checkpoints(work=store.work(DIGEST), copies=store.checkpoint_copies(DIGEST))


def saved(made: Checkpoints, epoch: int) -> None:
    parts = {"network": {"weight": torch.full((8,), float(epoch))}}
    made.save(epoch, Snapshot(parts=parts, numbers={"epoch": epoch}))
    made.copies.wait()


def test_checkpoint_written_here_is_resumed_there(here: Store, there: Store) -> None:
    saved(checkpoints(here), 3)
    found = checkpoints(there).latest()

    assert found is not None
    assert found.numbers == {"epoch": 3}
    assert found.parts["network"]["weight"].tolist() == [3.0] * 8


def test_only_the_last_checkpoint_stays_in_the_storage(here: Store) -> None:
    made = checkpoints(here)
    for epoch in (1, 2, 3):
        saved(made, epoch)
    epochs = {key.split("/")[3] for key in here.backend.remote.entries(f"work/{DIGEST}")}

    assert epochs == {"epoch-000003"}


def test_checkpoint_that_takes_longer_to_send_than_the_next_to_come_arrives(
    here: Store, there: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Remote.put

    def slowly(remote: Remote, file: Path, key: str) -> Entry:
        time.sleep(0.3)
        return put(remote, file, key)

    monkeypatch.setattr(Remote, "put", slowly)
    made = checkpoints(here)
    for epoch in (1, 2, 3):
        parts = {"network": {"weight": torch.zeros(8)}, "best": {"weight": torch.zeros(8)}}
        made.save(epoch, Snapshot(parts=parts, numbers={"epoch": epoch}))
    made.copies.wait()

    assert checkpoints(there).latest().numbers == {"epoch": 1}
    saved(made, 4)
    assert [place.name for place in here.work(DIGEST).glob("*/epoch-*")] == ["epoch-000004"]


def test_checkpoint_that_is_half_there_does_not_count(here: Store, there: Store) -> None:
    saved(checkpoints(here), 2)
    here.backend.remote.write(f"work/{DIGEST}/other/epoch-000009/network.safetensors", b"half")

    assert checkpoints(there).latest().numbers == {"epoch": 2}


def test_more_advanced_checkpoint_of_this_machine_is_taken(here: Store, there: Store) -> None:
    saved(checkpoints(there), 2)
    Checkpoints(work=here.work(DIGEST)).save(5, Snapshot(parts={}, numbers={"epoch": 5}))

    assert checkpoints(here).latest().numbers == {"epoch": 5}


def test_attempt_that_ends_well_leaves_no_checkpoint(here: Store) -> None:
    with here.lease(DIGEST):
        saved(checkpoints(here), 1)

    assert here.backend.remote.entries("work") == {}


def test_what_a_driver_writes_is_seen_elsewhere_while_it_runs(
    here: Store, there: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_sync, "SECONDS", 0.1)
    folder = here.study("tiny")
    with here.uploading("tiny"):
        (folder / "search").mkdir(parents=True)
        (folder / "search" / "journal.log").write_text('{"a": 1}\n{"b"')
        (folder / "failures.jsonl").write_text("x\n")
        deadline = time.monotonic() + 20
        while not (there.study("tiny") / "search" / "journal.log").is_file() and time.monotonic() < deadline:
            there.pull("tiny")
        assert (there.study("tiny") / "search" / "journal.log").read_text() == '{"a": 1}\n', "whole lines only"
        (folder / "failures.jsonl").unlink()
        (folder / "results.parquet").write_bytes(b"results")
    there.pull("tiny")

    assert {path.name for path in there.study("tiny").iterdir()} == {"search", "results.parquet"}


def test_pulling_does_not_touch_what_a_driver_of_this_machine_writes(here: Store, there: Store) -> None:
    with here.uploading("tiny"):
        (here.study("tiny")).mkdir(parents=True)
        (here.study("tiny") / "plan.json").write_text("newer")
        there.backend.remote.write("studies/tiny/plan.json", b"older")
        here.pull("tiny")
        assert (here.study("tiny") / "plan.json").read_text() == "newer"
    there.pull("tiny")

    assert (there.study("tiny") / "plan.json").read_text() == "newer"


@pytest.mark.parametrize(
    ("stored", "kept"), [(b"1\n2\n", b"1\n2\n3 is long\n"), (b"1\n4\n", b"1\n4\n")], ids=["ahead", "another way"]
)
def test_a_journal_stays_only_where_it_goes_on_from_the_stored_one(here: Store, stored: bytes, kept: bytes) -> None:
    journal = here.study("tiny") / "search" / "journal.log"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"1\n2\n3 is long\n")
    here.backend.remote.write("studies/tiny/search/journal.log", stored)
    here.pull("tiny")

    assert journal.read_bytes() == kept


def test_studies_are_known_by_a_file(here: Store, there: Store) -> None:
    for name in ("one", "two"):
        here.backend.remote.write(f"studies/{name}/spec.yaml", b"name: x")
    here.backend.remote.write("studies/three/plan.json", b"{}")

    assert there.studies("spec.yaml") == ["one", "two"]
