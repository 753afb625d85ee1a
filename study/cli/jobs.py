"""Commands for a study on a remote cluster: `study submit`, `study logs`, `study stop`."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, File, Overrides, StudyName
from study.config.document import read_document
from study.errors import ConfigError, Problem
from study.places import storage_at, study_folder

if TYPE_CHECKING:
    from cluster.jobs.client import SubmittedJob

HEAD = "The cluster's dashboard, http://HEAD:8265."
HeadAddress = Annotated[
    str, typer.Option(envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"], help=HEAD, show_default=False)
]
STATES = {
    "PENDING": "planned",
    "RUNNING": "running",
    "STOPPED": "stopped",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
}
LAST_LINES = 10
SIGNAL_EXIT_BASE = 128
"""Shells report a process that signal n ended by the exit code 128 + n."""


def submit(
    file: File,
    address: HeadAddress,
    storage: Annotated[
        str | None, typer.Option(metavar="PATH|URI", help="Storage of stages and results that all nodes can reach.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Container image with the platform in which the job runs.")] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study as a job of a cluster, and return at once; submitting again resumes it.

    The file is checked without the data, which are on the cluster; the study is planned there.
    """
    from cluster.jobs.package import entrypoint, runtime_environment
    from study.config.schema import with_absolute_places
    from study.planning.load import load_spec

    document = read_document(file, overrides or ())
    spec = load_spec(document, file=str(file))
    document = with_absolute_places(document, spec)
    location = _shared_storage(storage)
    if _driver_is_alive(location, spec.name):
        message = (
            f"a driver of {spec.name} wrote there less than a minute ago; allowed: one driver of a study at a time; "
            f"study stop {spec.name}, or wait a minute if it has ended"
        )
        raise ConfigError([Problem(path="--storage", message=message)], str(file))
    from cluster.jobs.client import Jobs

    with _cluster_errors(str(file)), runtime_environment(document, image) as runtime:
        job = Jobs(address).submit(
            spec.name,
            entrypoint(document, location, image=image),
            runtime,
            {"study": spec.name, "storage": location},
            lambda line: say(line, error=True),
        )
    option = f"--address {shlex.quote(address)}"
    say(f"submitted {job}; next: " + "; ".join(f"study {command} {option}" for command in _next_commands(spec.name)))


def logs(
    name: StudyName,
    address: HeadAddress,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Follow the output until the job ends.")] = False,
) -> None:
    """Show the output of the newest job of a study, including errors."""
    from cluster.jobs.client import Jobs

    with _cluster_errors(name):
        jobs = Jobs(address)
        job = jobs.latest(name)
        if follow:
            jobs.follow(job.id, lambda lines: say(lines, newline=lines[-1:] != "\n"))
        else:
            say(jobs.logs(job.id).rstrip("\n"))


def stop(name: StudyName, address: HeadAddress) -> None:
    """Stop the job of a study; finished stages are kept, and submitting the study again resumes it."""
    from cluster.jobs.client import Jobs

    with _cluster_errors(name):
        job = Jobs(address).stop(name)
    say(f"{job.id} is {job.status.lower()}; finished stages are kept, study submit resumes it")


def show_job(name: str, address: str, *, as_json: bool) -> None:
    """Print the status of the newest job of a study, from its storage or, if that is unreadable, from its logs."""
    from cluster.jobs.client import Jobs

    with _cluster_errors(name):
        jobs = Jobs(address)
        job = jobs.latest(name)
        stored = _stored_status(job.metadata.get("storage"), name)
        # The message of a failed job has the last lines of its log, or the reason why it did not start.
        output = job.message if job.status == "FAILED" else "" if stored else jobs.logs(job.id)
    content = stored or {"study": name, "stages": None, "failures": []}
    lines = output.splitlines()[-LAST_LINES:]
    content |= {"state": _state(job), "job": {"id": job.id, "status": job.status, "lines": lines}}
    say(json.dumps(content, indent=1) if as_json else "\n".join(_job_lines(content)))


def _job_lines(content: dict[str, Any]) -> Iterator[str]:
    from study.monitoring.status import status_text

    job = content["job"]
    yield status_text(content) if content["stages"] else f"{content['study']}: {content['state']}"
    yield f"job: {job['id']} {job['status'].lower()}"
    yield from (f"  {line}" for line in job["lines"])


def _state(job: "SubmittedJob") -> str:
    """Return the state as in `study status`; a job that was ended by a signal or a lost node is interrupted."""
    exited_with_error = job.exit_code is not None and 0 < job.exit_code < SIGNAL_EXIT_BASE
    return "interrupted" if job.status == "FAILED" and not exited_with_error else STATES[job.status]


def _next_commands(name: str) -> list[str]:
    return [f"logs {name} -f", f"status {name}", f"stop {name}"]


def _shared_storage(storage: str | None) -> str:
    """Return a storage that all nodes can reach. Raises `ConfigError` for a folder of this machine."""
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


def _driver_is_alive(storage: str, name: str) -> bool:
    """Return whether the study had a heartbeat within the last minute; False if the storage cannot be read."""
    status = _stored_status(storage, name)
    return status is not None and status["state"] == "running"


def _stored_status(storage: str | None, name: str) -> dict[str, Any] | None:
    """Return the status of a study in a storage, None if it cannot be read from this machine."""
    from study.monitoring.status import status

    if storage is None:
        return None
    try:
        folder = storage_at(storage)
        study_folder(folder, name)
        return status(folder, name)
    except (ConfigError, OSError):
        return None


@contextmanager
def _cluster_errors(subject: str) -> Iterator[None]:
    """Convert errors of the cluster to `ConfigError`."""
    from cluster.jobs.client import ClusterJobError

    try:
        yield
    except ClusterJobError as error:
        raise ConfigError([Problem(path="--address", message=str(error))], subject) from error
