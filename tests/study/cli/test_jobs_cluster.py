"""A study as a job of a cluster of three nodes with its token on, by the command line alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import ray

from tests.support.command import histories
from tests.support.head import Cluster, cluster
from tests.support.object_store import ObjectStore, object_store
from tests.support.tiny import tiny, written

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE = 300.0
STUDY = tiny({"stages.classify.epochs": 40, "stages.segment.steps": 60})
"""Long enough to be stopped on the way."""


@dataclass(frozen=True)
class Place:
    """A laptop beside a cluster that shares one folder with it."""

    head: Cluster
    folder: Path
    bucket: ObjectStore

    @property
    def storage(self) -> Path:
        return self.folder / "runs"

    def study(self, *words: str | Path, address: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        named = ["--address", self.head.address] if address else []
        # Ray sets it in a process that had a cluster, as this one did where other tests ran before.
        laptop = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
        return subprocess.run(
            [sys.executable, "-m", "study", *map(str, words), *named],
            env=laptop | self.head.environment | {"COLUMNS": "160"} | variables,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def submit(self, document: dict[str, Any], storage: str | Path = "") -> subprocess.CompletedProcess[str]:
        return self.study("submit", written(document, self.folder), "--storage", storage or self.storage)

    def status(self, name: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.study("status", name, "--json").stdout)
        return told

    def until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with object_store() as bucket, cluster(workers=2) as head:
        yield Place(head, tmp_path_factory.mktemp("shared"), bucket)


@pytest.fixture(scope="module")
def table(place: Place) -> str:
    """What `study table` shows after the study ran on one machine."""
    local = place.folder / "local"
    ran = place.study("run", written(STUDY, place.folder), "--storage", local, address=False)
    assert ran.returncode == 0, ran.stderr
    return place.study("table", "tiny", "--storage", local, address=False).stdout


def test_a_study_is_submitted_watched_stopped_resumed_and_ends_as_on_one_machine(place: Place, table: str) -> None:
    first = place.submit(STUDY)
    assert first.stdout.startswith(f"submitted tiny-1; next: study logs tiny -f --address {place.head.address}; ")
    again = place.submit(STUDY)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    place.until(lambda: histories(place.storage))
    running = place.status("tiny")
    assert (running["state"], running["job"]["status"]) == ("running", "RUNNING")

    stopped = place.study("stop", "tiny")
    assert stopped.stdout == "tiny-1 is stopped; finished stages are kept, study submit resumes it\n"
    published = histories(place.storage)
    assert 0 < len(published) < 5
    assert place.status("tiny")["state"] == "stopped"
    stored = place.study("status", "tiny", "--storage", place.storage, address=False).stdout
    assert stored.startswith("tiny: stopped\n")
    assert "stopped; finished stages are kept" in place.study("logs", "tiny").stdout

    assert place.submit(STUDY).stdout.startswith("submitted tiny-2")
    followed = place.study("logs", "tiny", "-f").stdout
    assert f"[1/{5 - len(published)}] " in followed
    assert "learning curve: " in followed
    ended = place.status("tiny")
    assert (ended["state"], ended["job"]["status"], ended["stages"]["finished"]) == ("finished", "SUCCEEDED", 5)
    assert published.items() <= histories(place.storage).items()
    results = [
        pq.read_table(there / "studies/tiny/results.parquet") for there in (place.folder / "local", place.storage)
    ]
    assert results[0].equals(results[1])
    assert place.study("table", "tiny", "--storage", place.storage, address=False).stdout == table


def test_with_a_bucket_as_storage_a_job_ends_with_the_same_table(place: Place, table: str) -> None:
    storage = place.bucket.uri("runs")
    place.submit(STUDY, storage)
    logs = place.study("logs", "tiny", "-f").stdout
    assert place.status("tiny")["state"] == "finished", logs
    blind = json.loads(place.study("status", "tiny", "--json", AWS_ENDPOINT_URL="http://127.0.0.1:1").stdout)
    assert (blind["state"], blind["stages"]) == ("finished", None)
    assert "next: study table tiny" in blind["job"]["lines"][-1]
    assert place.study("table", "tiny", "--storage", storage, address=False).stdout == table


def test_what_planning_refuses_on_the_cluster_comes_back(place: Place) -> None:
    elsewhere = tiny({"name": "elsewhere", "data.hospital": {"source": "folder", "root": "/nowhere/here"}})
    assert place.submit(elsewhere).returncode == 0
    logs = place.study("logs", "elsewhere", "-f").stdout
    refusal = next(line for line in logs.splitlines() if line.startswith("elsewhere.yaml: data.hospital: "))
    place.until(lambda: place.status("elsewhere")["state"] == "failed")
    told = place.status("elsewhere")
    assert told["stages"] is None
    assert refusal in told["job"]["lines"]
    assert f"  {refusal}\n" in place.study("status", "elsewhere").stdout


def test_a_job_whose_driver_was_killed_is_interrupted_and_goes_on(place: Place) -> None:
    killed = tiny({"name": "killed"})
    assert place.submit(killed).returncode == 0
    place.until((place.storage / "studies/killed/driver.json").is_file)
    for process in psutil.process_iter(["cmdline"]):
        if {"run", "killed.yaml"} <= set(process.info["cmdline"] or ()):
            process.send_signal(signal.SIGKILL)
    place.until(lambda: place.status("killed")["state"] == "interrupted")
    place.until(lambda: place.submit(killed).returncode == 0)  # once the last heartbeat is a minute old
    place.study("logs", "killed", "-f")
    assert place.status("killed")["state"] == "finished"


@pytest.mark.parametrize(
    ("token", "what"),
    [("no", "refuses the token of this machine"), ("", "asks for a token, and this machine has none")],
)
def test_a_token_that_is_wrong_or_missing_is_told_with_where_to_get_it(place: Place, token: str, what: str) -> None:
    told = place.study("logs", "tiny", RAY_AUTH_TOKEN=token).stderr
    assert told.startswith(
        f"tiny: --address: {place.head.address} {what}; allowed: the cluster's own token; get it on "
    )
    assert told.count("\n") == 1


def test_a_driver_that_joins_without_the_token_is_told_what_to_set(place: Place) -> None:
    file = written(STUDY, place.folder)
    told = place.study("run", file, "--storage", place.folder / "none", "--address", place.head.nodes, address=False)
    assert told.returncode == 2
    last = told.stderr.splitlines()[-1]
    assert last.startswith(f"{file}: --address: Failed to connect to Ray cluster at ")
    assert last.endswith("set RAY_AUTH_MODE=token and put the token into ~/.ray/auth_token")


def test_another_version_of_ray_is_refused(place: Place) -> None:
    client = f"main(['logs', 'tiny', '--address', {place.head.address!r}])"
    code = f"import ray; ray.__version__ = '2.59.0'; from study.cli.main import main; {client}"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | place.head.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert told.stderr == (
        f"tiny: --address: the cluster runs Ray {ray.__version__} and this machine 2.59.0; allowed: the same version; "
        f"install ray=={ray.__version__} here, or requirements.lock there\n"
    )


def test_a_study_that_was_never_submitted_is_refused(place: Place) -> None:
    for command in ("logs", "stop", "status"):
        told = place.study(command, "nobody")
        assert (told.returncode, told.stderr.count("\n")) == (2, 1)
        assert "has no job of study 'nobody'" in told.stderr


def test_no_log_of_the_cluster_holds_the_token(place: Place) -> None:
    token = place.head.environment["RAY_AUTH_TOKEN"]
    logs = [path for path in Path(place.head.environment["HOME"]).rglob("*.log") if path.is_file()]
    assert logs
    assert not [path for path in logs if token in path.read_text(errors="replace")]
