"""What is refused before a cluster is reached; jobs on a real one are in test_submitting_cluster.py."""

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
def unheard() -> str:
    """Return an address of this machine where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tiny(), tmp_path)


def refused(capsys: Capture, *words: str | Path) -> str:
    """Run a command that is refused; return its one line."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


@pytest.mark.parametrize("storage", [(), ("--storage", "shared/runs")], ids=["default", "relative"])
def test_storage_of_this_machine_is_refused(
    capsys: Capture, file: Path, unheard: str, storage: tuple[str, ...]
) -> None:
    told = refused(capsys, "submit", file, "--address", unheard, *storage)
    assert told.startswith(f"study submit: --storage: is {storage[1] if storage else 'runs'}, a folder of this machine")
    assert "allowed: an absolute path or a URI that every node of the cluster reaches" in told


def test_storage_with_credentials_is_refused_without_showing_them(capsys: Capture, file: Path, unheard: str) -> None:
    told = refused(capsys, "submit", file, "--address", unheard, "--storage", "s3://me:secret@bucket/runs")
    assert "holds credentials" in told
    assert "secret@" not in told


def test_a_study_whose_driver_lives_is_refused(capsys: Capture, file: Path, tmp_path: Path, unheard: str) -> None:
    folder = tmp_path / "runs" / "studies" / "tiny"
    folder.mkdir(parents=True)
    (folder / SPEC).write_text(file.read_text())
    (folder / PLAN).write_text(json.dumps({"stages": {}}))
    beat = {"state": "running", "time": time.time(), "stages": {"running": 1}}
    (folder / DRIVER).write_text(json.dumps(beat))
    told = refused(capsys, "submit", file, "--address", unheard, "--storage", tmp_path / "runs")
    assert (
        "--storage: a driver of tiny wrote there less than a minute ago; allowed: one driver of a study at a time"
        in told
    )


def test_what_the_file_says_wrong_is_refused_before_the_cluster_is_asked(
    capsys: Capture, tmp_path: Path, unheard: str
) -> None:
    file = written(tiny({"stages.segment.epoch": 3}), tmp_path)
    told = refused(capsys, "submit", file, "--address", unheard, "--storage", tmp_path)
    assert "stages.segment.epoch: unknown key" in told


def test_data_and_weights_of_the_cluster_need_not_be_here(capsys: Capture, tmp_path: Path, unheard: str) -> None:
    there = {"data.hospital": {"source": "folder", "root": "/nowhere/here"},
             "compare.initial_weights": [{"file": "/nowhere/weights.safetensors"}]}  # fmt: skip
    file = written(tiny(there), tmp_path)
    told = refused(capsys, "submit", file, "--address", unheard, "--storage", tmp_path)
    assert f"--address: nothing answers at {unheard}" in told


def test_an_address_where_nothing_answers_is_refused_with_what_to_do(capsys: Capture, unheard: str) -> None:
    told = refused(capsys, "logs", "tiny", "--address", unheard)
    assert told.startswith(
        f"tiny: --address: nothing answers at {unheard} (Connection refused); allowed: the dashboard"
    )
    assert "ssh -L 8265:localhost:8265 HEAD" in told


@pytest.mark.parametrize("address", ["auto", "HEAD:6379", "http://:8265", "http://HEAD:port"])
def test_an_address_that_is_no_dashboard_is_refused(capsys: Capture, address: str) -> None:
    told = refused(capsys, "stop", "tiny", "--address", address)
    assert told == (
        f"tiny: --address: is '{address}'; allowed: the dashboard of a cluster, http://HEAD:8265; "
        "name it with --address\n"
    )


def test_rays_own_variable_names_the_cluster(capsys: Capture, unheard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", unheard)
    assert f"nothing answers at {unheard}" in refused(capsys, "logs", "tiny")


def test_without_the_extra_its_name_is_told(unheard: str) -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "import socket; from study.cli.main import main\n"
        "with socket.socket() as server:\n"
        "    server.bind(('127.0.0.1', 0)); server.listen()\n"
        "    main(['logs', 'tiny', '--address', f'http://127.0.0.1:{server.getsockname()[1]}'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert 'pip install "segmentation-study[cluster]"' in ended.stderr
    assert ended.stderr.count("\n") == 1
