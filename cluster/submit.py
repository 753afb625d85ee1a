"""Studies as jobs of a cluster elsewhere: the only door to Ray's Jobs API."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from cluster import QUIET
from cluster.connect import silence

Answer = TypeVar("Answer")
STOP_SECONDS = 60
"""What a driver has to end by itself when it is stopped; Ray's own 3 are too few to leave a cluster."""
POLL_SECONDS = 0.5
CHATTY = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Loggers that tell of every upload."""
TOKEN_REMEDY = (
    "allowed: the cluster's own token; get it on its head with `ray get-auth-token` and put it into ~/.ray/auth_token "
    "here, or into RAY_AUTH_TOKEN"
)


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
        self.address = address.rstrip("/")
        self._client = _client(self.address)
        running = self._asked(lambda: self._client._do_request("GET", "/api/version").json()["ray_version"])
        if running != ray.__version__:
            raise Declined(
                f"the cluster runs Ray {running} and this machine {ray.__version__}; allowed: the same version; "
                f"install ray=={running} here, or requirements.lock there"
            )

    def of(self, name: str) -> list[Submitted]:
        """Return all jobs of a study, the newest last."""
        found = []
        for job in self._asked(self._client.list_jobs):
            number = re.fullmatch(rf"{re.escape(name)}-(\d+)", job.submission_id or "")
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

    def submit(self, name: str, entrypoint: str, surroundings: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
        """Start a job in `surroundings`, Ray's runtime environment; return its id. One of a study lives at a time."""
        before = self.of(name)
        if before and before[-1].alive:
            raise Declined(
                f"{before[-1].id} is {before[-1].status.lower()}; allowed: one job of a study at a time; wait for it, "
                f"or study stop {name} --address {self.address}"
            )
        job = f"{name}-{before[-1].number + 1 if before else 1}"
        variables = QUIET | {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)} | surroundings.get("env_vars", {})
        self._asked(
            lambda: self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env={**surroundings, "env_vars": variables},
                metadata=dict(metadata),
            )
        )
        return job

    def logs(self, job: str) -> str:
        """Return all that a job wrote so far."""
        return str(self._asked(lambda: self._client.get_job_logs(job)))

    def follow(self, job: str, say: Callable[[str], None]) -> None:
        """Pass on what a job wrote and writes, until it ends."""

        async def listen() -> None:
            async for lines in self._client.tail_job_logs(job):
                say(lines)

        self._asked(lambda: asyncio.run(listen()))

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
        return _asked(self.address, ask)


def _client(address: str) -> Any:  # noqa: ANN401 - Ray's client, which has no types
    """Return Ray's client, with the token of this machine where there is one."""
    unheard = silence(*_place(address))
    if unheard:
        raise Declined(
            f"nothing answers at {address} ({unheard}); allowed: the dashboard of a running cluster; start it, or "
            "forward its port: ssh -L 8265:localhost:8265 HEAD"
        )
    try:
        import aiohttp  # noqa: F401 - without it the import below succeeds, and fails later
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise Declined(
            f"{error.name} is not installed here; allowed: an installation that can speak to clusters; "
            'pip install "segmentation-study[cluster]"'
        ) from error
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # or RAY_ADDRESS would overrule what was asked for
    return _asked(address, lambda: JobSubmissionClient(address, headers=_authorization()))


def _place(address: str) -> tuple[str, int]:
    """Return host and port of a dashboard."""
    parts = urlsplit(address)
    with suppress(ValueError):  # what a port that is no number raises
        if parts.scheme in {"http", "https"} and parts.hostname:
            return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    raise Declined(f"is {address!r}; allowed: the dashboard of a cluster, http://HEAD:8265; name it with --address")


def _authorization() -> dict[str, str]:
    """Return the header with this machine's token. Ray's own client looks for one only with RAY_AUTH_MODE=token."""
    tokens = AuthenticationTokenLoader.instance()
    if not tokens.has_token(ignore_auth_mode=True):
        return {}
    return {"Authorization": f"Bearer {tokens.get_raw_token(ignore_auth_mode=True)}"}


def _asked(address: str, ask: Callable[[], Answer]) -> Answer:
    """Return an answer of the cluster, or raise `Declined` with the reason there is none."""
    import aiohttp

    try:
        return ask()
    except AuthenticationError as error:
        wrong = str(error).startswith("Authentication failed")
        what = "refuses the token of this machine" if wrong else "asks for a token and this machine has none"
        raise Declined(f"{address} {what}; {TOKEN_REMEDY}") from error
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Declined(f"{address} did not do it ({reason}); allowed: a Ray cluster's dashboard; see there") from error
    except BrokenPipeError:  # of whoever reads what is told
        raise
    except (OSError, aiohttp.ClientError) as error:
        raise Declined(
            f"{address} does not answer as a dashboard; allowed: that of a running cluster; check it"
        ) from error
