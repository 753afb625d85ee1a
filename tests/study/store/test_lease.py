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


def claim_of(work: Path, *, host: str | None = None, pid: int | None = None, born: float | None = None) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    me = psutil.Process()
    content = {"host": host or socket.gethostname(), "pid": pid or me.pid, "born": born or me.create_time()}
    file = work / "claim.json"
    file.write_text(json.dumps(content))
    return file


def test_claim_is_held_during_the_block_only(work: Path) -> None:
    assert not is_leased(work)
    with lease(work):
        assert is_leased(work)
    assert not is_leased(work)


def test_a_claim_that_cannot_be_read_counts(work: Path) -> None:
    work.mkdir(parents=True)
    (work / "claim.json").symlink_to("/proc/self/mem")  # whose first byte is an error of input and output
    assert is_leased(work)


def test_second_claim_is_refused(work: Path) -> None:
    with lease(work), pytest.raises(LeaseHeld), lease(work):
        pass


def test_block_that_ends_well_removes_the_work_folder(work: Path) -> None:
    with lease(work):
        (work / "attempt").mkdir()

    assert not work.exists()


def test_block_that_fails_keeps_the_attempts_and_frees_the_claim(work: Path) -> None:
    def fail() -> None:
        with lease(work):
            (work / "attempt").mkdir()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (work / "attempt").is_dir()
    assert not is_leased(work)


def test_claim_of_a_dead_process_does_not_count(work: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    claim_of(work, pid=process.pid)

    assert not is_leased(work)


def test_claim_of_a_process_whose_number_was_given_again_does_not_count(work: Path) -> None:
    claim_of(work, born=psutil.Process().create_time() - 3600)

    assert not is_leased(work)


def test_claim_outlives_a_clock_that_is_set_by_a_second(work: Path) -> None:
    claim_of(work, born=psutil.Process().create_time() - 1)

    assert is_leased(work)


def test_claim_of_a_zombie_does_not_count(work: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        born = psutil.Process(process.pid).create_time()
        claim_of(work, pid=process.pid, born=born)
        assert is_leased(work)
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not is_leased(work)


def test_fresh_beat_of_another_host_counts(work: Path) -> None:
    claim_of(work, host="elsewhere")

    assert is_leased(work)


def test_stale_beat_of_another_host_does_not_count(work: Path) -> None:
    file = claim_of(work, host="elsewhere")
    old = time.time() - STALE_SECONDS - 1
    os.utime(file, (old, old))

    assert not is_leased(work)


def test_claim_beats(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.store.repeating.BEAT_SECONDS", 0.01)
    with lease(work):
        os.utime(work / "claim.json", (0, 0))
        deadline = time.monotonic() + 10
        while not (work / "claim.json").stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (work / "claim.json").stat().st_mtime > 0


def test_of_many_threads_one_gets_the_claim(work: Path) -> None:
    start, end, won = threading.Barrier(8), threading.Barrier(8, timeout=20), []

    def take() -> None:
        start.wait()
        try:
            with lease(work):
                won.append(1)
                end.wait()
        except LeaseHeld:
            end.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


TAKER = """
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
            others = [path for path in work.parent.glob(f"in-{number}-*")]
            assert not others, others
            mark = work.parent / f"in-{number}-{sys.argv[3]}"
            mark.touch()
            time.sleep(0.01)
            mark.unlink()
    except LeaseHeld:
        pass
"""


def test_processes_never_hold_one_claim_together(tmp_path: Path) -> None:
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(tmp_path / "work"), "25", str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    ended = [taker.communicate("go\n", timeout=60) for taker in takers]

    assert [stderr for _, stderr in ended] == ["", ""]
    assert len({path.name.split("-")[1] for path in tmp_path.glob("won-*")}) == 25


def test_killed_holder_frees_the_claim_at_once(work: Path) -> None:
    held = "import sys, time; from pathlib import Path; from study.store.lease import lease\n"
    held += "with lease(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", held, str(work)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_leased(work)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lease(work):
            pass


def test_claim_taken_over_is_left_to_its_new_holder(tmp_path: Path) -> None:
    work = tmp_path / "work" / "stage"
    with lease(work):
        theirs = {"host": "elsewhere", "pid": 1, "born": 0.0, "token": "theirs"}
        (work / "claim.json").write_text(json.dumps(theirs))
        (work / "attempt").mkdir()
    assert json.loads((work / "claim.json").read_text()) == theirs
    assert (work / "attempt").is_dir()


def test_claim_of_another_host_counts_while_the_storage_does_not_tell_its_age(work: Path) -> None:
    claim_of(work, host="elsewhere")
    (work / ".now").symlink_to(".now")

    assert is_leased(work)
