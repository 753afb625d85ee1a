"""Studies as jobs of a cluster elsewhere: the only door to Ray's Jobs API."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import AuthenticationError

from cluster import QUIET
from cluster.addresses import Endpoint, connection_problem, parse_address, shown
from cluster.tokens import has_token_file, is_withheld

if TYPE_CHECKING:
    from cluster.jobs.dashboard import Client

Answer = TypeVar("Answer")
STOP_SECONDS = 60
"""What a driver has to end by itself when it is stopped; Ray's own 3 are too few to leave a cluster."""
POLL_SECONDS = 0.5
AGENT_SECONDS = 60.0
"""What the job agent of a head has to start."""
AGENT_POLL_SECONDS = 2.0
NO_AGENT = "No available agent to submit job"
"""In Ray's answer while the job agent starts; the job was not taken."""
DASHBOARD = "allowed: the dashboard of a running Ray cluster"
TOKEN_PLACES = "set RAY_AUTH_TOKEN to the cluster's token"
TOKEN_REMEDY = (
    "allowed: the cluster's own token; get it on its head with `ray get-auth-token` and put it into ~/.ray/auth_token "
    "here, or into RAY_AUTH_TOKEN"
)
NO_TOKEN = "this machine has none"


class Declined(Exception):  # noqa: N818 - an expected end, not a bug
    """The cluster cannot be reached, or does not do it: `what is wrong; allowed: ...; remedy`."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job of a study. `number` counts its submissions to this cluster; `exit_code` is None until it ended itself."""

    id: str
    number: int
    status: str
    message: str
    exit_code: int | None
    metadata: Mapping[str, str]

    @property
    def alive(self) -> bool:
        """Return whether it waits or runs."""
        return self.status in {"PENDING", "RUNNING"}


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`."""

    def __init__(self, address: str) -> None:
        """Reach it. Raises `Declined` where that fails, or where it runs another version of Ray."""
        self._endpoint = _endpoint(address)
        self.address = address.rstrip("/")
        self._client = _client(self.address, self._endpoint)
        running = self._asked(self._client.version)
        if running != ray.__version__:
            raise Declined(
                f"the cluster runs Ray {running} and this machine {ray.__version__}; allowed: the same version; "
                f"install ray=={running} here, or requirements.lock there"
            )

    def of(self, name: str) -> list[Submitted]:
        """Return all jobs of a study, the newest last."""
        found = []
        for job in self._asked(self._client.list_jobs):
            number = re.fullmatch(rf"{re.escape(name)}-(\d{{1,9}})", job.submission_id or "")
            if number:
                found.append(
                    Submitted(
                        id=job.submission_id, number=int(number[1]), status=str(job.status), message=job.message or "",
                        exit_code=job.driver_exit_code, metadata=job.metadata or {},
                    )
                )  # fmt: skip
        return sorted(found, key=lambda job: job.number)

    def latest(self, name: str) -> Submitted:
        """Return the newest job of a study. Raises `Declined`."""
        found = self.of(name)
        if not found:
            raise Declined(
                f"{self.address} has no job of study {name!r}; allowed: what was submitted to this cluster since it "
                "started; study submit"
            )
        return found[-1]

    def submit(
        self,
        name: str,
        entrypoint: str,
        surroundings: Mapping[str, Any],
        metadata: Mapping[str, str],
        say: Callable[[str], None],
    ) -> str:
        """Start a job in `surroundings`, Ray's runtime environment; return its id. One of a study lives at a time.

        `say` gets a line where the cluster is still starting, which is waited for.
        """
        before = self.of(name)
        if before and before[-1].alive:
            raise Declined(
                f"{before[-1].id} is {before[-1].status.lower()}; allowed: one job of a study at a time; wait for it, "
                f"or study stop {name} --address {self.address}"
            )
        job = f"{name}-{before[-1].number + 1 if before else 1}"
        variables = QUIET | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)} | surroundings.get("env_vars", {})
        options = {
            "entrypoint": entrypoint,
            "submission_id": job,
            "runtime_env": {**surroundings, "env_vars": variables},
            "metadata": dict(metadata),
        }
        self._asked(lambda: self._submit_when_ready(options, say))
        return job

    def _submit_when_ready(self, options: Mapping[str, Any], say: Callable[[str], None]) -> None:
        deadline = 0.0
        while True:
            try:
                self._client.submit_job(**options)
            except RuntimeError as error:
                if NO_AGENT not in str(error):
                    raise
                if not deadline:
                    deadline = time.monotonic() + AGENT_SECONDS
                    say(f"the job agent of {self.address} is still starting; waiting for up to {AGENT_SECONDS:g} s")
                elif time.monotonic() > deadline:
                    raise Declined(
                        f"the job agent of {self.address} did not start in {AGENT_SECONDS:g} s; allowed: a cluster "
                        "that takes jobs; submit again, or see dashboard_agent.log on its head"
                    ) from error
                time.sleep(AGENT_POLL_SECONDS)
            else:
                return

    def logs(self, job: str) -> str:
        """Return all that a job wrote so far."""
        return str(self._asked(lambda: self._client.get_job_logs(job)))

    def follow(self, job: str, say: Callable[[str], None]) -> None:
        """Pass on what a job wrote and writes, until it ends."""
        self._asked(lambda: self._client.follow(job, say))

    def stop(self, name: str) -> Submitted:
        """Ask the newest job of a study to end, and return it once it did. Raises `Declined` where none lives."""
        job = self.latest(name)
        if not job.alive:
            raise Declined(f"{job.id} is {job.status.lower()}; allowed: a job that waits or runs; nothing is to stop")
        self._asked(lambda: self._client.stop_job(job.id))
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while job.alive:
            if time.monotonic() > deadline:
                raise Declined(
                    f"{job.id} did not end in {2 * STOP_SECONDS} s; allowed: to ask again; study stop {name}"
                )
            time.sleep(POLL_SECONDS)
            job = self.latest(name)
        return job

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        return _asked(self.address, self._endpoint, ask)


def _endpoint(address: str) -> Endpoint:
    """Return the parts of a dashboard's address. Raises `Declined`."""
    allowed = "allowed: the dashboard of a cluster, http://HEAD:8265"
    try:
        parsed = parse_address(address)
    except ValueError as error:
        secret = "@" in address
        raise Declined(f"{error}; {allowed}; {TOKEN_PLACES if secret else 'name it with --address'}") from error
    if parsed.scheme not in {"http", "https"}:
        raise Declined(f"is {shown(address)}; {allowed}; name it with --address")
    return parsed


def _client(address: str, endpoint: Endpoint) -> "Client":
    problem = connection_problem(endpoint.host, endpoint.port or (443 if endpoint.scheme == "https" else 80))
    if problem:
        raise Declined(
            f"nothing answers at {address} ({problem}); allowed: the dashboard of a running cluster; start it, or "
            "forward its port: ssh -L 8265:localhost:8265 HEAD"
        )
    try:
        from cluster.jobs.dashboard import Client
    except ImportError as error:
        raise Declined(
            f"{error.name} is not installed here; allowed: an installation that can speak to clusters; "
            'pip install "segmentation-study[cluster]"'
        ) from error
    return _asked(address, endpoint, lambda: Client(address, endpoint))


def _asked(address: str, endpoint: Endpoint, ask: Callable[[], Answer]) -> Answer:
    """Return an answer of the cluster, or raise `Declined` with the reason there is none."""
    import aiohttp

    from cluster.jobs.dashboard import RedirectError

    try:
        return ask()
    except AuthenticationError as error:
        raise Declined(f"{address} {_token_problem(str(error), endpoint)}") from error
    except RedirectError as error:
        raise Declined(f"{address} redirects to {_target(str(error))}; {DASHBOARD}; name it with --address") from error
    except BrokenPipeError:  # of whoever reads what is told
        raise
    except (OSError, aiohttp.ClientError) as error:  # before `ValueError`: some are both, and hold what was sent
        raise Declined(f"{address} does not answer as a dashboard; {DASHBOARD}; check it") from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        # An answer of the wrong shape fails anywhere in Ray's client.
        reason = " ".join(str(error).split())[:200]
        raise Declined(f"{address} did not do it ({reason}); {DASHBOARD}; check it, and its log there") from error


def _token_problem(error: str, endpoint: Endpoint) -> str:
    if is_withheld(endpoint):
        why = "that of ~/.ray/auth_token is not sent unencrypted to another machine" if has_token_file() else NO_TOKEN
        return (
            f"asks for a token, and {why}; allowed: https, or this machine: ssh -L 8265:localhost:8265 HEAD; or set "
            "RAY_AUTH_TOKEN to what `ray get-auth-token` prints on its head"
        )
    wrong = error.startswith("Authentication failed")
    what = "refuses the token of this machine" if wrong else f"asks for a token, and {NO_TOKEN}"
    return f"{what}; {TOKEN_REMEDY}"


def _target(location: str) -> str:
    """Return where a redirect leads, without what it may carry there."""
    try:
        parsed = parse_address(location.partition("?")[0])
    except ValueError:
        return "another address"
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return f"{parsed.scheme}://{host}" + (f":{parsed.port}" if parsed.port else "") if parsed.scheme else "another page"
