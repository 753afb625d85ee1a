"""What a job takes to a cluster: the code, the study file, and the command that runs it there."""

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
TEXT = "STUDY_FILE"
"""The variable that brings the study file into a container: Ray ships no folder there."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@contextmanager
def shipped(document: Mapping[str, Any], image: str | None) -> Iterator[dict[str, Any]]:
    """Yield Ray's runtime environment of the job; it has to be submitted within the block."""
    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    if image:
        yield {"image_uri": image, "env_vars": {TEXT: text}}
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(str(files(package)), folder / package, ignore=ignored)
        (folder / file_name(document)).write_text(text, encoding="utf-8")
        (folder / REQUIREMENTS).write_text("".join(f"{line}\n" for line in _needed()), encoding="utf-8")
        yield {"working_dir": name}


def entrypoint(document: Mapping[str, Any], storage: str, *, image: str | None) -> str:
    """Return the job's shell command."""
    file = file_name(document)
    begin = f'cd "$(mktemp -d)" && printf %s "${TEXT}" > {file} && ' if image else ""
    run = shlex.join(["python", "-m", "study", "run", file, "--address", "auto", "--storage", storage])
    return f"{begin}python -m cluster.jobs.preflight {PYTHON} && exec {run}"


def file_name(document: Mapping[str, Any]) -> str:
    """Return what the study file is called on the cluster, and so in its refusals."""
    return f"{document['name']}.yaml"


def _needed() -> list[str]:
    """Return what the platform needs where it runs, as its own installation says; nothing from a bare checkout."""
    try:
        lines = requires("segmentation-study") or []
    except PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]
