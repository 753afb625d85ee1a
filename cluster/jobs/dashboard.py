"""Ray's client of the Jobs API, bounded in time and true to one address. Importing it needs the extra `cluster`."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp  # noqa: F401 - without it the import below succeeds, and fails later
from ray.job_submission import JobSubmissionClient

from cluster.addresses import CONNECT_SECONDS, Endpoint
from cluster.tokens import authorization, environment

if TYPE_CHECKING:
    from requests import Response

VERSION = "/api/version"
VERSION_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""A cluster under load reads long logs, or waits for its job agent."""
CHATTY = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Loggers that tell of every upload."""


class RedirectError(Exception):
    """The server sends its clients to another address."""


class Client(JobSubmissionClient):
    """Jobs of the cluster whose dashboard is at an address, asked with this machine's token where it may travel."""

    def __init__(self, address: str, endpoint: Endpoint) -> None:
        """Connect. Raises what `requests` and Ray raise."""
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        # A proxy would see what only this machine may.
        self._options = {"proxies": {"no_proxy": endpoint.host}} if endpoint.is_loopback else {}
        with environment(RAY_API_SERVER_ADDRESS=address):  # or RAY_ADDRESS would overrule what was asked for
            super().__init__(address, headers=authorization(endpoint))

    def version(self) -> str:
        """Return the version of Ray that the cluster runs."""
        return str(self._do_request("GET", VERSION).json()["ray_version"])

    def follow(self, job: str, say: Callable[[str], None]) -> None:
        """Pass on what a job wrote and writes, until it ends."""

        async def listen() -> None:
            async for lines in self.tail_job_logs(job):
                say(lines)

        asyncio.run(listen())

    def _do_request(self, method: str, endpoint: str, **options: Any) -> "Response":  # noqa: ANN401 - of `requests`
        seconds = VERSION_SECONDS if endpoint == VERSION else ANSWER_SECONDS
        options |= {"allow_redirects": False, "timeout": (CONNECT_SECONDS, seconds)} | self._options
        response: Response = super()._do_request(method, endpoint, **options)
        if response.is_redirect:
            raise RedirectError(response.headers["location"])
        return response
