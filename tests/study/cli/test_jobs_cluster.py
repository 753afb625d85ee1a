"""Studies as jobs on a cluster of three nodes that requires a token, run through the command line."""

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
TIMEOUT_SECONDS = 300.0
STUDY = tiny({"stages.classify.epochs": 40, "stages.segment.steps": 60})
"""A study that runs long enough to be stopped before it ends."""


@dataclass(frozen=True)
class Environment:
    """A client machine and a cluster that share a folder and a bucket."""

    head: Cluster
    folder: Path
    bucket: ObjectStore

    @property
    def storage(self) -> Path:
        return self.folder / "runs"

    def study(self, *arguments: str | Path, address: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        options = ["--address", self.head.address] if address else []
        # Ray sets this variable in a process that ran a cluster before, as other tests do.
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
        return subprocess.run(
            [sys.executable, "-m", "study", *map(str, arguments), *options],
            env=inherited | self.head.environment | {"COLUMNS": "160"} | variables,
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip

    def submit(self, document: dict[str, Any], storage: str | Path = "") -> subprocess.CompletedProcess[str]:
        return self.study("submit", written(document, self.folder), "--storage", storage or self.storage)

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.study("status", name, "--json").stdout)
        return status

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with object_store() as bucket, cluster(workers=2) as head:
        yield Environment(head, tmp_path_factory.mktemp("shared"), bucket)


@pytest.fixture(scope="module")
def table(environment: Environment) -> str:
    """Output of `study table` after the study ran on one machine."""
    storage = environment.folder / "local"
    result = environment.study("run", written(STUDY, environment.folder), "--storage", storage, address=False)
    assert result.returncode == 0, result.stderr
    return environment.study("table", "tiny", "--storage", storage, address=False).stdout


def test_submitted_study_can_be_stopped_and_resumed_with_the_results_of_a_local_run(
    environment: Environment, table: str
) -> None:
    first = environment.submit(STUDY)
    assert first.stdout.startswith(f"submitted tiny-1; next: study logs tiny -f --address {environment.head.address}; ")
    second = environment.submit(STUDY)
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    environment.until(lambda: histories(environment.storage))
    running = environment.status("tiny")
    assert (running["state"], running["job"]["status"]) == ("running", "RUNNING")

    stopped = environment.study("stop", "tiny")
    assert stopped.stdout == "tiny-1 is stopped; finished stages are kept, study submit resumes it\n"
    published = histories(environment.storage)
    assert 0 < len(published) < 5
    assert environment.status("tiny")["state"] == "stopped"
    stored = environment.study("status", "tiny", "--storage", environment.storage, address=False).stdout
    assert stored.startswith("tiny: stopped\n")
    assert "stopped; finished stages are kept" in environment.study("logs", "tiny").stdout

    assert environment.submit(STUDY).stdout.startswith("submitted tiny-2")
    log = environment.study("logs", "tiny", "-f").stdout
    assert f"[1/{5 - len(published)}] " in log
    assert "learning curve: " in log
    final = environment.status("tiny")
    assert (final["state"], final["job"]["status"], final["stages"]["finished"]) == ("finished", "SUCCEEDED", 5)
    assert published.items() <= histories(environment.storage).items()
    results = [
        pq.read_table(folder / "studies/tiny/results.parquet")
        for folder in (environment.folder / "local", environment.storage)
    ]
    assert results[0].equals(results[1])
    assert environment.study("table", "tiny", "--storage", environment.storage, address=False).stdout == table


def test_job_with_bucket_storage_gives_the_same_table(environment: Environment, table: str) -> None:
    storage = environment.bucket.uri("runs")
    environment.submit(STUDY, storage)
    logs = environment.study("logs", "tiny", "-f").stdout
    assert environment.status("tiny")["state"] == "finished", logs
    offline = json.loads(environment.study("status", "tiny", "--json", AWS_ENDPOINT_URL="http://127.0.0.1:1").stdout)
    assert (offline["state"], offline["stages"]) == ("finished", None)
    assert "next: study table tiny" in offline["job"]["lines"][-1]
    assert environment.study("table", "tiny", "--storage", storage, address=False).stdout == table


def test_planning_error_on_the_cluster_is_shown_by_status(environment: Environment) -> None:
    document = tiny({"name": "invalid", "data.hospital": {"source": "folder", "root": "/nowhere/here"}})
    assert environment.submit(document).returncode == 0
    logs = environment.study("logs", "invalid", "-f").stdout
    error = next(line for line in logs.splitlines() if line.startswith("invalid.yaml: data.hospital: "))
    environment.until(lambda: environment.status("invalid")["state"] == "failed")
    status = environment.status("invalid")
    assert status["stages"] is None
    assert error in status["job"]["lines"]
    assert f"  {error}\n" in environment.study("status", "invalid").stdout


def test_job_with_killed_driver_is_interrupted_and_can_be_resumed(environment: Environment) -> None:
    document = tiny({"name": "killed"})
    assert environment.submit(document).returncode == 0
    environment.until((environment.storage / "studies/killed/driver.json").is_file)
    for process in psutil.process_iter(["cmdline"]):
        if {"run", "killed.yaml"} <= set(process.info["cmdline"] or ()):
            process.send_signal(signal.SIGKILL)
    environment.until(lambda: environment.status("killed")["state"] == "interrupted")
    environment.until(lambda: environment.submit(document).returncode == 0)  # once the last heartbeat is a minute old
    environment.study("logs", "killed", "-f")
    assert environment.status("killed")["state"] == "finished"


@pytest.mark.parametrize(
    ("token", "problem"),
    [("no", "refuses the token of this machine"), ("", "asks for a token, and this machine has none")],
)
def test_wrong_or_missing_token_is_reported_with_the_remedy(environment: Environment, token: str, problem: str) -> None:
    stderr = environment.study("logs", "tiny", RAY_AUTH_TOKEN=token).stderr
    assert stderr.startswith(
        f"tiny: --address: {environment.head.address} {problem}; allowed: the cluster's own token; get it on "
    )
    assert stderr.count("\n") == 1


def test_driver_without_the_token_is_rejected_with_the_remedy(environment: Environment) -> None:
    file = written(STUDY, environment.folder)
    result = environment.study(
        "run", file, "--storage", environment.folder / "none", "--address", environment.head.nodes, address=False
    )
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"{file}: --address: Failed to connect to Ray cluster at ")
    assert line.endswith("set RAY_AUTH_MODE=token and put the token into ~/.ray/auth_token")


def test_different_version_of_ray_is_rejected(environment: Environment) -> None:
    command = f"main(['logs', 'tiny', '--address', {environment.head.address!r}])"
    code = f"import ray; ray.__version__ = '2.59.0'; from study.cli.main import main; {command}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment.head.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        f"tiny: --address: the cluster runs Ray {ray.__version__} and this machine 2.59.0; allowed: the same version; "
        f"install ray=={ray.__version__} here, or requirements.lock there\n"
    )


def test_study_without_a_job_is_rejected(environment: Environment) -> None:
    for command in ("logs", "stop", "status"):
        result = environment.study(command, "nobody")
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert "has no job of study 'nobody'" in result.stderr


def test_logs_of_the_cluster_do_not_contain_the_token(environment: Environment) -> None:
    token = environment.head.environment["RAY_AUTH_TOKEN"]
    logs = [path for path in Path(environment.head.environment["HOME"]).rglob("*.log") if path.is_file()]
    assert logs
    assert not [path for path in logs if token in path.read_text(errors="replace")]
