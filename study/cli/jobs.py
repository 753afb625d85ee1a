"""Commands for a study on a cluster elsewhere: `study submit`, `study logs`, `study stop`."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, File, Overrides, StudyName, storage_at, study_folder
from study.config.document import read_document
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    from cluster.jobs.client import Submitted

HEAD = "The cluster's dashboard, http://HEAD:8265."
Head = Annotated[str, typer.Option(envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"], help=HEAD, show_default=False)]
STATES = {
    "PENDING": "planned",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
}
LAST_LINES = 10
SIGNALLED = 128
"""Exit codes above are a shell's way to say that a signal ended the process."""


def submit(
    file: File,
    address: Head,
    storage: Annotated[
        str | None, typer.Option(metavar="PATH|URI", help="Where stages and results live; every node must reach it.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="A container image with the platform; the job's processes run in it.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study as a job of a cluster, and return at once; submitting again resumes it.

    The file is checked here without its data, which lie on the cluster: there the study is planned.
    """
    from cluster.jobs.package import entrypoint, shipped
    from study.config.schema import with_absolute_places
    from study.planning.load import load_spec

    document = read_document(file, overrides or ())
    spec = load_spec(document, file=str(file))
    document = with_absolute_places(document, spec)
    place = _shared(storage)
    if _beats(place, spec.name):
        message = (
            f"a driver of {spec.name} wrote there less than a minute ago; allowed: one driver of a study at a time; "
            f"study stop {spec.name}, or wait a minute where it is gone"
        )
        raise ConfigError([Problem(path="--storage", message=message)], str(file))
    from cluster.jobs.client import Jobs

    with _refusing(str(file)), shipped(document, image) as runtime:
        job = Jobs(address).submit(
            spec.name,
            entrypoint(document, place, image=image),
            runtime,
            {"study": spec.name, "storage": place},
            lambda line: say(line, error=True),
        )
    there = f"--address {shlex.quote(address)}"
    say(f"submitted {job}; next: " + "; ".join(f"study {word} {there}" for word in _next(spec.name)))


def logs(
    name: StudyName,
    address: Head,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Show what the newest job of a study wrote, its refusals too."""
    from cluster.jobs.client import Jobs

    with _refusing(name):
        jobs = Jobs(address)
        job = jobs.latest(name)
        if follow:
            jobs.follow(job.id, lambda lines: say(lines, newline=lines[-1:] != "\n"))
        else:
            say(jobs.logs(job.id).rstrip("\n"))


def stop(name: StudyName, address: Head) -> None:
    """End the job of a study; what is finished is kept, and submitting again goes on from there."""
    from cluster.jobs.client import Jobs

    with _refusing(name):
        job = Jobs(address).stop(name)
    say(f"{job.id} is {job.status.lower()}; what is finished is kept, study submit goes on from there")


def show_job(name: str, address: str, *, as_json: bool) -> None:
    """Tell how far the newest job of a study is, by its storage too; where that cannot be read, by the job's lines."""
    from cluster.jobs.client import Jobs

    with _refusing(name):
        jobs = Jobs(address)
        job = jobs.latest(name)
        stored = _stored(job.metadata.get("storage"), name)
        # A failed job's message has its last lines too, and what kept it from starting.
        said = job.message if job.status == "FAILED" else "" if stored else jobs.logs(job.id)
    told = stored or {"study": name, "stages": None, "failures": []}
    lines = said.splitlines()[-LAST_LINES:]
    told |= {"state": _state(job), "job": {"id": job.id, "status": job.status, "lines": lines}}
    say(json.dumps(told, indent=1) if as_json else "\n".join(_job_text(told)))


def _job_text(told: dict[str, Any]) -> Iterator[str]:
    from study.monitoring.status import status_text

    job = told["job"]
    yield status_text(told) if told["stages"] else f"{told['study']}: {told['state']}"
    yield f"job: {job['id']} {job['status'].lower()}"
    yield from (f"  {line}" for line in job["lines"])


def _state(job: "Submitted") -> str:
    """Return the state of a study as `study status` names it. A job that a signal ended, or its node, did not fail."""
    ended_itself = job.exit_code is not None and 0 < job.exit_code < SIGNALLED
    return "interrupted" if job.status == "FAILED" and not ended_itself else STATES[job.status]


def _next(name: str) -> list[str]:
    return [f"logs {name} -f", f"status {name}", f"stop {name}"]


def _shared(storage: str | None) -> str:
    """Return a storage that all nodes may share. Raises `ConfigError` for one that can only be this machine's."""
    from study.store.object_store import checked_uri, is_uri

    if storage is not None and is_uri(storage):
        return checked_uri(storage)
    if storage is None or not Path(storage).is_absolute():
        message = (
            f"is {storage or DEFAULT_STORAGE}, a folder of this machine; allowed: an absolute path or a URI that every "
            "node of the cluster reaches, such as /mnt/shared/runs or s3://bucket/runs; name one"
        )
        raise ConfigError([Problem(path="--storage", message=message)], "study submit")
    return storage


def _beats(storage: str, name: str) -> bool:
    """Return whether a driver of the study was alive a minute ago, as far as can be told from here."""
    told = _stored(storage, name)
    return told is not None and told["state"] == "running"


def _stored(storage: str | None, name: str) -> dict[str, Any] | None:
    """Return what a storage tells of a study, None where it cannot be read from here."""
    from study.monitoring.status import status

    if storage is None:
        return None
    try:
        place = storage_at(storage)
        study_folder(place, name)
        return status(place, name)
    except (ConfigError, OSError):
        return None


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what the cluster cannot do into a refusal."""
    from cluster.jobs.client import Declined

    try:
        yield
    except Declined as error:
        raise ConfigError([Problem(path="--address", message=str(error))], what) from error
