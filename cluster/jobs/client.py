"""Client for studies that run as jobs on a remote cluster; the only module that uses Ray's Jobs API."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import AuthenticationError

from cluster import RAY_ENVIRONMENT
from cluster.addresses import Endpoint, connection_problem, parse_address, quoted_address
from cluster.tokens import has_token_file, is_withheld

if TYPE_CHECKING:
    from cluster.jobs.dashboard import DashboardClient

Result = TypeVar("Result")
STOP_SECONDS = 60
"""Time for a stopped driver to shut down; Ray's default of 3 s is too short to disconnect from a cluster."""
POLL_SECONDS = 0.5
AGENT_SECONDS = 60.0
"""Time for the job agent of a head to start."""
AGENT_POLL_SECONDS = 2.0
NO_AGENT = "No available agent to submit job"
"""Part of Ray's error while the job agent starts; the job was not submitted."""
ALLOWED_ADDRESS = "allowed: the dashboard of a running Ray cluster"
TOKEN_VARIABLE_REMEDY = "set RAY_AUTH_TOKEN to the cluster's token"
TOKEN_REMEDY = (
    "allowed: the cluster's own token; get it on its head with `ray get-auth-token` and put it into ~/.ray/auth_token "
    "here, or into RAY_AUTH_TOKEN"
)
NO_TOKEN = "this machine has none"


class ClusterJobError(Exception):
    """The cluster cannot be reached or refuses a request; the text is `problem; allowed: ...; remedy`."""


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """A job of a study. `number` counts submissions to this cluster; `exit_code` is None before a regular end."""

    id: str
    number: int
    status: str
    message: str
    exit_code: int | None
    metadata: Mapping[str, str]

    @property
    def alive(self) -> bool:
        """Return whether the job is pending or running."""
        return self.status in {"PENDING", "RUNNING"}


class Jobs:
    """Jobs of the cluster whose dashboard is at `address`."""

    def __init__(self, address: str) -> None:
        """Connect. Raises `ClusterJobError` if that fails or the cluster runs another version of Ray."""
        self._endpoint = _endpoint(address)
        self.address = address.rstrip("/")
        self._client = _client(self.address, self._endpoint)
        running = self._call(self._client.version)
        if running != ray.__version__:
            raise ClusterJobError(
                f"the cluster runs Ray {running} and this machine {ray.__version__}; allowed: the same version; "
                f"install ray=={running} here, or requirements.lock there"
            )

    def of_study(self, name: str) -> list[SubmittedJob]:
        """Return all jobs of a study, oldest first."""
        jobs = []
        for job in self._call(self._client.list_jobs):
            number = re.fullmatch(rf"{re.escape(name)}-(\d{{1,9}})", job.submission_id or "")
            if number:
                jobs.append(
                    SubmittedJob(
                        id=job.submission_id, number=int(number[1]), status=str(job.status), message=job.message or "",
                        exit_code=job.driver_exit_code, metadata=job.metadata or {},
                    )
                )  # fmt: skip
        return sorted(jobs, key=lambda job: job.number)

    def latest(self, name: str) -> SubmittedJob:
        """Return the newest job of a study. Raises `ClusterJobError` if there is none."""
        jobs = self.of_study(name)
        if not jobs:
            raise ClusterJobError(
                f"{self.address} has no job of study {name!r}; allowed: what was submitted to this cluster since it "
                "started; study submit"
            )
        return jobs[-1]

    def submit(
        self,
        name: str,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
        print_line: Callable[[str], None],
    ) -> str:
        """Start a job and return its id. Raises `ClusterJobError` if a job of this study is pending or running.

        Args:
            runtime_env: Ray's runtime environment of the job.
            print_line: Called with a message while the cluster is still starting, which is waited for.
        """
        before = self.of_study(name)
        if before and before[-1].alive:
            raise ClusterJobError(
                f"{before[-1].id} is {before[-1].status.lower()}; allowed: one job of a study at a time; wait for it, "
                f"or study stop {name} --address {self.address}"
            )
        job = f"{name}-{before[-1].number + 1 if before else 1}"
        variables = RAY_ENVIRONMENT | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)} | runtime_env.get("env_vars", {})
        options = {
            "entrypoint": entrypoint,
            "submission_id": job,
            "runtime_env": {**runtime_env, "env_vars": variables},
            "metadata": dict(metadata),
        }
        self._call(lambda: self._submit_when_ready(options, print_line))
        return job

    def _submit_when_ready(self, options: Mapping[str, Any], print_line: Callable[[str], None]) -> None:
        deadline = 0.0
        while True:
            try:
                self._client.submit_job(**options)
            except RuntimeError as error:
                if NO_AGENT not in str(error):
                    raise
                if not deadline:
                    deadline = time.monotonic() + AGENT_SECONDS
                    print_line(
                        f"the job agent of {self.address} is still starting; waiting for up to {AGENT_SECONDS:g} s"
                    )
                elif time.monotonic() > deadline:
                    raise ClusterJobError(
                        f"the job agent of {self.address} did not start in {AGENT_SECONDS:g} s; allowed: a cluster "
                        "that takes jobs; submit again, or see dashboard_agent.log on its head"
                    ) from error
                time.sleep(AGENT_POLL_SECONDS)
            else:
                return

    def logs(self, job: str) -> str:
        """Return the output of a job so far."""
        return str(self._call(lambda: self._client.get_job_logs(job)))

    def follow(self, job: str, print_lines: Callable[[str], None]) -> None:
        """Stream the output of a job until it ends."""
        self._call(lambda: self._client.follow(job, print_lines))

    def stop(self, name: str) -> SubmittedJob:
        """Stop the newest job of a study and wait for its end. Raises `ClusterJobError` if it has ended already."""
        job = self.latest(name)
        if not job.alive:
            raise ClusterJobError(
                f"{job.id} is {job.status.lower()}; allowed: a job that waits or runs; nothing is to stop"
            )
        self._call(lambda: self._client.stop_job(job.id))
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while job.alive:
            if time.monotonic() > deadline:
                raise ClusterJobError(
                    f"{job.id} did not end in {2 * STOP_SECONDS} s; allowed: to ask again; study stop {name}"
                )
            time.sleep(POLL_SECONDS)
            job = self.latest(name)
        return job

    def _call(self, request: Callable[[], Result]) -> Result:
        return _call(self.address, self._endpoint, request)


def _endpoint(address: str) -> Endpoint:
    """Parse a dashboard's address. Raises `ClusterJobError`."""
    allowed = "allowed: the dashboard of a cluster, http://HEAD:8265"
    try:
        parsed = parse_address(address)
    except ValueError as error:
        remedy = TOKEN_VARIABLE_REMEDY if "@" in address else "name it with --address"
        raise ClusterJobError(f"{error}; {allowed}; {remedy}") from error
    if parsed.scheme not in {"http", "https"}:
        raise ClusterJobError(f"is {quoted_address(address)}; {allowed}; name it with --address")
    return parsed


def _client(address: str, endpoint: Endpoint) -> "DashboardClient":
    problem = connection_problem(endpoint.host, endpoint.port or (443 if endpoint.scheme == "https" else 80))
    if problem:
        raise ClusterJobError(
            f"nothing answers at {address} ({problem}); allowed: the dashboard of a running cluster; start it, or "
            "forward its port: ssh -L 8265:localhost:8265 HEAD"
        )
    try:
        from cluster.jobs.dashboard import DashboardClient
    except ImportError as error:
        raise ClusterJobError(
            f"{error.name} is not installed here; allowed: an installation that can speak to clusters; "
            'pip install "segmentation-study[cluster]"'
        ) from error
    return _call(address, endpoint, lambda: DashboardClient(address, endpoint))


def _call(address: str, endpoint: Endpoint, request: Callable[[], Result]) -> Result:
    """Return the result of a request; convert its errors to `ClusterJobError`."""
    import aiohttp

    from cluster.jobs.dashboard import RedirectError

    try:
        return request()
    except AuthenticationError as error:
        raise ClusterJobError(f"{address} {_token_problem(str(error), endpoint)}") from error
    except RedirectError as error:
        target = _redirect_target(str(error))
        raise ClusterJobError(f"{address} redirects to {target}; {ALLOWED_ADDRESS}; name it with --address") from error
    except BrokenPipeError:  # from the reader of our output, not from the cluster
        raise
    except (OSError, aiohttp.ClientError) as error:  # before `ValueError`: some are both, and contain the request
        raise ClusterJobError(f"{address} does not answer as a dashboard; {ALLOWED_ADDRESS}; check it") from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        # A malformed response raises any of these in Ray's client.
        reason = " ".join(str(error).split())[:200]
        raise ClusterJobError(
            f"{address} did not do it ({reason}); {ALLOWED_ADDRESS}; check it, and its log there"
        ) from error


def _token_problem(error: str, endpoint: Endpoint) -> str:
    if is_withheld(endpoint):
        not_sent = "that of ~/.ray/auth_token is not sent unencrypted to another machine"
        reason = not_sent if has_token_file() else NO_TOKEN
        return (
            f"asks for a token, and {reason}; allowed: https, or this machine: ssh -L 8265:localhost:8265 HEAD; or set "
            "RAY_AUTH_TOKEN to what `ray get-auth-token` prints on its head"
        )
    is_wrong = error.startswith("Authentication failed")
    problem = "refuses the token of this machine" if is_wrong else f"asks for a token, and {NO_TOKEN}"
    return f"{problem}; {TOKEN_REMEDY}"


def _redirect_target(location: str) -> str:
    """Return the target of a redirect, without its query, which may contain secrets."""
    try:
        parsed = parse_address(location.partition("?")[0])
    except ValueError:
        return "another address"
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return f"{parsed.scheme}://{host}" + (f":{parsed.port}" if parsed.port else "") if parsed.scheme else "another page"
