"""What a job takes along, run as a node of the cluster runs it, but for the cluster."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.jobs.package import PACKAGES, entrypoint, runtime_environment
from cluster.jobs.preflight import REQUIREMENTS
from study.config.document import read_document
from tests.support.tiny import tiny

BROKEN = tiny({"stages.segment.epoch": 3})
"""Refused where it is planned, before a cluster is looked for."""


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a folder as the only place that holds our packages."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder)} | variables
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_job_takes_the_packages_the_file_and_nothing_else() -> None:
    with runtime_environment(tiny(), None) as runtime:
        folder = Path(runtime["working_dir"])
        inside = {path.name for path in folder.iterdir()}
        assert inside == {*PACKAGES, "tiny.yaml", REQUIREMENTS}
        assert read_document(folder / "tiny.yaml") == tiny()
        assert not list(folder.rglob("__pycache__"))
        assert (folder / "study" / "catalog" / "demo.yaml").is_file()


def test_what_a_job_took_is_gone_after_it_was_submitted() -> None:
    with runtime_environment(tiny(), None) as runtime:
        folder = Path(runtime["working_dir"])
    assert not folder.exists()


def test_requirements_are_those_of_the_platform_without_extras() -> None:
    with runtime_environment(tiny(), None) as runtime:
        needed = (Path(runtime["working_dir"]) / REQUIREMENTS).read_text().splitlines()
    assert {"filelock", "pandas"} <= set(needed)
    assert not [line for line in needed if "extra" in line]


def test_a_job_runs_the_code_it_took_along_and_refuses_as_a_plan_does() -> None:
    with runtime_environment(BROKEN, None) as runtime:
        folder = Path(runtime["working_dir"])
        (folder / "cluster" / "jobs" / "preflight.py").write_text("print('the shipped one')\n")
        ended = run(entrypoint(BROKEN, "/storage", image=None), folder)
    assert (ended.returncode, ended.stdout) == (2, "the shipped one\n")
    assert ended.stderr.startswith("tiny.yaml: stages.segment.epoch: unknown key")


def test_a_job_that_misses_a_library_ends_with_one_line() -> None:
    with runtime_environment(tiny(), None) as runtime:
        folder = Path(runtime["working_dir"])
        (folder / REQUIREMENTS).write_text("no-such-library\n")
        ended = run(entrypoint(tiny(), "/storage", image=None), folder)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "no-such-library is missing; allowed: requirements.lock on every node" in ended.stderr


def test_in_a_container_the_file_comes_in_a_variable(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])  # stands for what the image has installed
    with runtime_environment(BROKEN, "registry/image:1") as runtime:
        assert runtime.keys() == {"image_uri", "env_vars"}
        command = entrypoint(BROKEN, "/storage", image="registry/image:1")
        ended = run(command, tmp_path, PYTHONPATH=root, TMPDIR=str(tmp_path), **runtime["env_vars"])
    assert ended.returncode == 2
    assert ended.stderr.startswith("tiny.yaml: stages.segment.epoch: unknown key")


@pytest.mark.parametrize("place", ["/a folder/$HOME", "s3://bucket/$(runs)"])
def test_storage_passes_the_shell_as_it_is(tmp_path: Path, place: str) -> None:
    document: dict[str, Any] = tiny()
    words = entrypoint(document, place, image=None).partition("exec ")[2]
    told = run(f"printf '%s\\n' {words}", tmp_path).stdout.splitlines()
    assert told == ["python", "-m", "study", "run", "tiny.yaml", "--address", "auto", "--storage", place]
