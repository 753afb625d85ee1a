"""Ray's Jobs API client with timeouts and without redirects. Importing it needs the extra `cluster`."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp  # noqa: F401 - if it is missing, the import below succeeds and fails later
from ray.job_submission import JobSubmissionClient

from cluster.addresses import CONNECT_SECONDS, Endpoint
from cluster.tokens import authorization, environment

if TYPE_CHECKING:
    from requests import Response

VERSION = "/api/version"
VERSION_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""Read timeout: a loaded cluster may take long to read logs or to reach its job agent."""
VERBOSE_LOGGERS = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Loggers that log every upload."""


class RedirectError(Exception):
    """The server redirects to another address."""


class DashboardClient(JobSubmissionClient):
    """Client that sends this machine's token only where `cluster.tokens` allows it."""

    def __init__(self, address: str, endpoint: Endpoint) -> None:
        """Connect. Raises the errors of `requests` and Ray."""
        for name in VERBOSE_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        # A proxy would see requests that must not leave this machine.
        self._options = {"proxies": {"no_proxy": endpoint.host}} if endpoint.is_loopback else {}
        with environment(RAY_API_SERVER_ADDRESS=address):  # otherwise RAY_ADDRESS takes precedence
            super().__init__(address, headers=authorization(endpoint))

    def version(self) -> str:
        """Return the version of Ray that the cluster runs."""
        return str(self._do_request("GET", VERSION).json()["ray_version"])

    def follow(self, job: str, print_lines: Callable[[str], None]) -> None:
        """Stream the output of a job until it ends."""

        async def stream() -> None:
            async for lines in self.tail_job_logs(job):
                print_lines(lines)

        asyncio.run(stream())

    def _do_request(self, method: str, endpoint: str, **options: Any) -> "Response":  # noqa: ANN401 - of `requests`
        seconds = VERSION_SECONDS if endpoint == VERSION else ANSWER_SECONDS
        options |= {"allow_redirects": False, "timeout": (CONNECT_SECONDS, seconds)} | self._options
        response: Response = super()._do_request(method, endpoint, **options)
        if response.is_redirect:
            raise RedirectError(response.headers["location"])
        return response
