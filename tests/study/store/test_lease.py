"""Leases of work folders: exclusive, renewed while held, and ignored once their process has ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from study.store.lease import STALE_SECONDS, LeaseHeld, is_leased, lease


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work" / "digest"


def write_lease(work: Path, *, host: str | None = None, pid: int | None = None, born: float | None = None) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    process = psutil.Process()
    content = {"host": host or socket.gethostname(), "pid": pid or process.pid, "born": born or process.create_time()}
    file = work / "claim.json"
    file.write_text(json.dumps(content))
    return file


def test_lease_is_held_only_inside_the_block(work: Path) -> None:
    assert not is_leased(work)
    with lease(work):
        assert is_leased(work)
    assert not is_leased(work)


def test_unreadable_lease_is_treated_as_held(work: Path) -> None:
    work.mkdir(parents=True)
    (work / "claim.json").symlink_to("/proc/self/mem")  # reading it raises an I/O error
    assert is_leased(work)


def test_second_lease_is_refused(work: Path) -> None:
    with lease(work), pytest.raises(LeaseHeld), lease(work):
        pass


def test_successful_block_removes_the_work_folder(work: Path) -> None:
    with lease(work):
        (work / "attempt").mkdir()

    assert not work.exists()


def test_failed_block_keeps_attempts_and_releases_the_lease(work: Path) -> None:
    def fail() -> None:
        with lease(work):
            (work / "attempt").mkdir()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (work / "attempt").is_dir()
    assert not is_leased(work)


def test_lease_of_dead_process_is_ignored(work: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    write_lease(work, pid=process.pid)

    assert not is_leased(work)


def test_lease_with_reused_process_id_is_ignored(work: Path) -> None:
    write_lease(work, born=psutil.Process().create_time() - 3600)

    assert not is_leased(work)


def test_lease_tolerates_a_clock_shift_of_one_second(work: Path) -> None:
    write_lease(work, born=psutil.Process().create_time() - 1)

    assert is_leased(work)


def test_lease_of_zombie_process_is_ignored(work: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        born = psutil.Process(child.pid).create_time()
        write_lease(work, pid=child.pid, born=born)
        assert is_leased(work)
        child.kill()
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_leased(work)


def test_fresh_lease_of_other_host_is_held(work: Path) -> None:
    write_lease(work, host="other-host")

    assert is_leased(work)


def test_stale_lease_of_other_host_is_ignored(work: Path) -> None:
    file = write_lease(work, host="other-host")
    stale_time = time.time() - STALE_SECONDS - 1
    os.utime(file, (stale_time, stale_time))

    assert not is_leased(work)


def test_lease_is_renewed_periodically(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.store.repeating.BEAT_SECONDS", 0.01)
    with lease(work):
        os.utime(work / "claim.json", (0, 0))
        deadline = time.monotonic() + 10
        while not (work / "claim.json").stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (work / "claim.json").stat().st_mtime > 0


def test_one_of_many_threads_gets_the_lease(work: Path) -> None:
    start_barrier, end_barrier, winners = threading.Barrier(8), threading.Barrier(8, timeout=20), []

    def acquire() -> None:
        start_barrier.wait()
        try:
            with lease(work):
                winners.append(1)
                end_barrier.wait()
        except LeaseHeld:
            end_barrier.wait()

    threads = [threading.Thread(target=acquire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1


CONTENDER = """
import sys, time
from pathlib import Path
from study.store.lease import LeaseHeld, lease
work, count = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    try:
        with lease(work / str(number)):
            (work.parent / f"won-{number}-{sys.argv[3]}").touch()
            time.sleep(0.01)
            concurrent = list(work.parent.glob(f"in-{number}-*"))
            assert not concurrent, concurrent
            marker = work.parent / f"in-{number}-{sys.argv[3]}"
            marker.touch()
            time.sleep(0.01)
            marker.unlink()
    except LeaseHeld:
        pass
"""


def test_processes_never_hold_the_same_lease_concurrently(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(tmp_path / "work"), "25", str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    outputs = [process.communicate("go\n", timeout=60) for process in processes]

    assert [stderr for _, stderr in outputs] == ["", ""]
    assert len({path.name.split("-")[1] for path in tmp_path.glob("won-*")}) == 25


def test_lease_of_killed_process_is_released_immediately(work: Path) -> None:
    script = "import sys, time; from pathlib import Path; from study.store.lease import lease\n"
    script += "with lease(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(work)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_leased(work)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lease(work):
            pass


def test_lease_taken_over_by_another_process_is_not_released(tmp_path: Path) -> None:
    work = tmp_path / "work" / "stage"
    with lease(work):
        new_lease = {"host": "other-host", "pid": 1, "born": 0.0, "token": "other"}
        (work / "claim.json").write_text(json.dumps(new_lease))
        (work / "attempt").mkdir()
    assert json.loads((work / "claim.json").read_text()) == new_lease
    assert (work / "attempt").is_dir()


def test_lease_of_other_host_is_held_while_its_age_is_unknown(work: Path) -> None:
    write_lease(work, host="other-host")
    (work / ".now").symlink_to(".now")

    assert is_leased(work)
