"""The files and the entrypoint of a job, run without a cluster as a node would run them."""

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
"""A study file that is rejected during planning, before the cluster is contacted."""


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a folder, from which alone the packages can be imported."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder)} | variables
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_job_contains_only_the_packages_and_the_study_file() -> None:
    with runtime_environment(tiny(), None) as runtime:
        folder = Path(runtime["working_dir"])
        files = {path.name for path in folder.iterdir()}
        assert files == {*PACKAGES, "tiny.yaml", REQUIREMENTS}
        assert read_document(folder / "tiny.yaml") == tiny()
        assert not list(folder.rglob("__pycache__"))
        assert (folder / "study" / "catalog" / "demo.yaml").is_file()


def test_package_folder_is_removed_after_submission() -> None:
    with runtime_environment(tiny(), None) as runtime:
        folder = Path(runtime["working_dir"])
    assert not folder.exists()


def test_requirements_are_those_of_the_platform_without_extras() -> None:
    with runtime_environment(tiny(), None) as runtime:
        requirements = (Path(runtime["working_dir"]) / REQUIREMENTS).read_text().splitlines()
    assert {"filelock", "pandas"} <= set(requirements)
    assert not [line for line in requirements if "extra" in line]


def test_job_runs_the_packaged_code_and_reports_errors_of_the_study_file() -> None:
    with runtime_environment(BROKEN, None) as runtime:
        folder = Path(runtime["working_dir"])
        (folder / "cluster" / "jobs" / "preflight.py").write_text("print('packaged version')\n")
        result = run(entrypoint(BROKEN, "/storage", image=None), folder)
    assert (result.returncode, result.stdout) == (2, "packaged version\n")
    assert result.stderr.startswith("tiny.yaml: stages.segment.epoch: unknown key")


def test_missing_library_is_reported_in_one_line() -> None:
    with runtime_environment(tiny(), None) as runtime:
        folder = Path(runtime["working_dir"])
        (folder / REQUIREMENTS).write_text("no-such-library\n")
        result = run(entrypoint(tiny(), "/storage", image=None), folder)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "no-such-library is missing; allowed: requirements.lock on every node" in result.stderr


def test_job_in_a_container_reads_the_study_file_from_a_variable(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])  # in place of the packages installed in the image
    with runtime_environment(BROKEN, "registry/image:1") as runtime:
        assert runtime.keys() == {"image_uri", "env_vars"}
        command = entrypoint(BROKEN, "/storage", image="registry/image:1")
        result = run(command, tmp_path, PYTHONPATH=root, TMPDIR=str(tmp_path), **runtime["env_vars"])
    assert result.returncode == 2
    assert result.stderr.startswith("tiny.yaml: stages.segment.epoch: unknown key")


@pytest.mark.parametrize("storage", ["/a folder/$HOME", "s3://bucket/$(runs)"])
def test_storage_argument_is_quoted_for_the_shell(tmp_path: Path, storage: str) -> None:
    document: dict[str, Any] = tiny()
    arguments = entrypoint(document, storage, image=None).partition("exec ")[2]
    output = run(f"printf '%s\\n' {arguments}", tmp_path).stdout.splitlines()
    assert output == ["python", "-m", "study", "run", "tiny.yaml", "--address", "auto", "--storage", storage]
