"""Job commands that are rejected without a cluster; `test_jobs_cluster.py` runs jobs on one."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.cli.main import main
from study.store.paths import DRIVER, PLAN, SPEC
from tests.support.tiny import tiny, written

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def unused_address() -> str:
    """Return an address of this machine where nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tiny(), tmp_path)


def run_rejected(capsys: Capture, *arguments: str | Path) -> str:
    """Run a command that must be rejected; return its only line on stderr."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (exit_info.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.mark.parametrize("storage", [(), ("--storage", "shared/runs")], ids=["default", "relative"])
def test_local_storage_is_rejected(capsys: Capture, file: Path, unused_address: str, storage: tuple[str, ...]) -> None:
    message = run_rejected(capsys, "submit", file, "--address", unused_address, *storage)
    assert message.startswith(
        f"study submit: --storage: is {storage[1] if storage else 'runs'}, a folder of this machine"
    )
    assert "allowed: an absolute path or a URI that every node of the cluster reaches" in message


def test_credentials_in_the_storage_are_rejected_and_not_shown(
    capsys: Capture, file: Path, unused_address: str
) -> None:
    message = run_rejected(
        capsys, "submit", file, "--address", unused_address, "--storage", "s3://me:secret@bucket/runs"
    )
    assert "holds credentials" in message
    assert "secret@" not in message


def test_study_with_a_running_driver_is_rejected(
    capsys: Capture, file: Path, tmp_path: Path, unused_address: str
) -> None:
    folder = tmp_path / "runs" / "studies" / "tiny"
    folder.mkdir(parents=True)
    (folder / SPEC).write_text(file.read_text())
    (folder / PLAN).write_text(json.dumps({"stages": {}}))
    heartbeat = {"state": "running", "time": time.time(), "stages": {"running": 1}}
    (folder / DRIVER).write_text(json.dumps(heartbeat))
    message = run_rejected(capsys, "submit", file, "--address", unused_address, "--storage", tmp_path / "runs")
    assert (
        "--storage: a driver of tiny wrote there less than a minute ago; allowed: one driver of a study at a time"
        in message
    )


def test_invalid_study_file_is_rejected_before_the_cluster_is_contacted(
    capsys: Capture, tmp_path: Path, unused_address: str
) -> None:
    file = written(tiny({"stages.segment.epoch": 3}), tmp_path)
    message = run_rejected(capsys, "submit", file, "--address", unused_address, "--storage", tmp_path)
    assert "stages.segment.epoch: unknown key" in message


def test_data_and_weights_may_exist_only_on_the_cluster(capsys: Capture, tmp_path: Path, unused_address: str) -> None:
    changes = {
        "data.hospital": {"source": "folder", "root": "/nowhere/here"},
        "compare.initial_weights": [{"file": "/nowhere/weights.safetensors"}],
    }
    file = written(tiny(changes), tmp_path)
    message = run_rejected(capsys, "submit", file, "--address", unused_address, "--storage", tmp_path)
    assert f"--address: nothing answers at {unused_address}" in message


def test_unreachable_address_is_rejected_with_the_remedy(capsys: Capture, unused_address: str) -> None:
    message = run_rejected(capsys, "logs", "tiny", "--address", unused_address)
    assert message.startswith(
        f"tiny: --address: nothing answers at {unused_address} (Connection refused); allowed: the dashboard"
    )
    assert "ssh -L 8265:localhost:8265 HEAD" in message


@pytest.mark.parametrize("address", ["auto", "HEAD:6379", "http://:8265", "http://HEAD:port"])
def test_address_that_is_not_a_dashboard_is_rejected(capsys: Capture, address: str) -> None:
    message = run_rejected(capsys, "stop", "tiny", "--address", address)
    assert message == (
        f"tiny: --address: is '{address}'; allowed: the dashboard of a cluster, http://HEAD:8265; "
        "name it with --address\n"
    )


def test_address_is_read_from_the_ray_address_variable(
    capsys: Capture, unused_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", unused_address)
    assert f"nothing answers at {unused_address}" in run_rejected(capsys, "logs", "tiny")


def test_missing_extra_is_named_in_the_message(unused_address: str) -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "import socket; from study.cli.main import main\n"
        "with socket.socket() as server:\n"
        "    server.bind(('127.0.0.1', 0)); server.listen()\n"
        "    main(['logs', 'tiny', '--address', f'http://127.0.0.1:{server.getsockname()[1]}'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert 'pip install "segmentation-study[cluster]"' in result.stderr
    assert result.stderr.count("\n") == 1
