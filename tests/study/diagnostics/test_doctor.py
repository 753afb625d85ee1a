"""`study doctor`: what it finds, and what it says to do about it."""

from pathlib import Path

import pytest

from study.cli.main import main
from study.diagnostics import doctor
from study.diagnostics.doctor import Finding, findings, shared_memory

Capture = pytest.CaptureFixture[str]


def found(storage: Path, cache: Path, word: str) -> Finding:
    """Return the finding whose line begins with a word."""
    (finding,) = [finding for finding in findings(storage, cache) if finding.line.split()[0] == word]
    return finding


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.catalog.hub.reachable", lambda: False)


def test_a_sound_machine_needs_nothing_for_its_folders(tmp_path: Path) -> None:
    for name in ("storage", "cache"):
        finding = found(tmp_path / "runs", tmp_path / "cache", name)
        assert finding.sound
        assert "is writable" in finding.line


def test_a_storage_that_cannot_be_written_is_named_with_its_option(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--storage", str(tmp_path / "file" / "runs"), "--cache", str(tmp_path / "cache")])
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.startswith("storage ")]
    assert lines[number + 1] == "             remedy: name another place with --storage"


def test_little_space_has_a_remedy_and_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK", 2**80)
    finding = found(tmp_path / "runs", tmp_path / "cache", "cache")
    assert (finding.sound, finding.remedy) == (True, "free some, or name another place with --cache")


def test_little_shared_memory_of_a_container_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(shared_memory(tmp_path / "missing")) == []
    monkeypatch.setattr(doctor, "LOW_SHARED_MEMORY", 2**80)
    (finding,) = shared_memory(tmp_path)
    assert (finding.sound, finding.remedy) == (True, "start the container with --shm-size=2g")


def test_a_missing_library_is_a_failure_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("no-such-library",))
    finding = found(tmp_path, tmp_path, "library")
    assert finding.line == "library      no-such-library is not installed"
    assert (finding.sound, finding.remedy) == (
        False,
        "install the wheel of the platform again (pip install --force-reinstall FILE.whl)",
    )


def test_an_unreachable_hub_is_no_failure_and_has_a_remedy(tmp_path: Path) -> None:
    finding = found(tmp_path / "runs", tmp_path / "cache", "weights")
    assert finding.sound
    assert "set HF_HOME to that cache" in finding.remedy
