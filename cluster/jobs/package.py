"""Package a study as a job: its code, the study file, and the command that runs it."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cluster.jobs.preflight import REQUIREMENTS

PACKAGES = ("study", "cluster", "results", "models", "datasets")
FILE_VARIABLE = "STUDY_FILE"
"""Environment variable with the study file's text, for containers, to which Ray uploads no folder."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@contextmanager
def runtime_environment(document: Mapping[str, Any], image: str | None) -> Iterator[dict[str, Any]]:
    """Yield Ray's runtime environment of the job, which has to be submitted within the block."""
    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    if image:
        yield {"image_uri": image, "env_vars": {FILE_VARIABLE: text}}
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(str(files(package)), folder / package, ignore=ignored)
        (folder / study_file_name(document)).write_text(text, encoding="utf-8")
        (folder / REQUIREMENTS).write_text("".join(f"{line}\n" for line in _requirements()), encoding="utf-8")
        yield {"working_dir": name}


def entrypoint(document: Mapping[str, Any], storage: str, *, image: str | None) -> str:
    """Return the job's shell command."""
    file = study_file_name(document)
    write_file = f'cd "$(mktemp -d)" && printf %s "${FILE_VARIABLE}" > {file} && ' if image else ""
    run = shlex.join(["python", "-m", "study", "run", file, "--address", "auto", "--storage", storage])
    return f"{write_file}python -m cluster.jobs.preflight {PYTHON} && exec {run}"


def study_file_name(document: Mapping[str, Any]) -> str:
    """Return the name of the study file on the cluster, as error messages show it."""
    return f"{document['name']}.yaml"


def _requirements() -> list[str]:
    """Return the requirements of the installed platform, without extras; empty for a checkout without installation."""
    try:
        lines = requires("segmentation-study") or []
    except PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]
