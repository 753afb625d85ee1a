"""A local cluster is not accessible from other machines or to other users of this machine."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys
os.umask(0o022)
import ray
from cluster.connect import connected
from cluster.local_cluster import LocalCluster
with connected(LocalCluster()):
    assert ray.get([ray.remote(lambda: 2).remote() for _ in range(4)]) == [2] * 4
    print(ray._private.worker._global_node.get_session_dir_path(), ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.readline()
assert "RAY_AUTH_TOKEN" not in os.environ
"""
CLIENT = """
import sys
from ray._raylet import GcsClient
try:
    print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, 5))
except Exception as error:
    print("refused", type(error).__name__, error)
"""


@dataclass(frozen=True)
class Run:
    """A running local cluster, started with umask 022 by a user whose token file was readable by others."""

    process: psutil.Process
    folder: Path
    session: Path
    gcs: str
    token_file: Path

    def listeners(self) -> dict[str, psutil.Process]:
        """Return the addresses on which processes of the cluster accept connections."""
        processes = {process.pid: process for process in (self.process, *self.process.children(recursive=True))}
        connections = psutil.net_connections(kind="inet")
        return {
            f"{connection.laddr.ip} {connection.laddr.port}": processes[connection.pid]
            for connection in connections
            if connection.status == psutil.CONN_LISTEN and connection.pid in processes
        }


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        token_file = folder / ".ray" / "auth_token"
        token_file.parent.mkdir()
        token_file.write_text("ab" * 32)
        token_file.chmod(0o644)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER], cwd=ROOT, env=variables | {"HOME": name, "TMPDIR": name},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        session, gcs = process.stdout.readline().split()
        yield Run(psutil.Process(process.pid), folder, Path(session), gcs, token_file)
        process.communicate("\n")
        assert process.returncode == 0


def test_every_server_listens_on_the_loopback_interface(run: Run) -> None:
    listeners = run.listeners()
    assert len(listeners) >= 6
    assert {address.split()[0] for address in listeners} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listeners


def test_dashboard_and_autoscaler_are_not_started(run: Run) -> None:
    commands = [" ".join(process.cmdline()) for process in run.process.children(recursive=True)]
    assert any("gcs_server" in command for command in commands)
    assert not [command for command in commands if "dashboard/dashboard.py" in command or "/autoscaler/" in command]


@pytest.mark.parametrize(
    "request_line", ["GET /metrics", "POST /api/job_agent/jobs/", "POST /get_or_create_runtime_env", "GET /api/jobs/"]
)
def test_request_without_token_is_rejected_by_every_server(run: Run, request_line: str) -> None:
    responses = [send_request(int(address.split()[1]), request_line) for address in run.listeners()]
    assert {response.split()[1] for response in responses if response.startswith("HTTP/")} == {"401"}


def send_request(port: int, request_line: str) -> str:
    """Return the response to a request without a token; empty if the server closes the connection, as gRPC does."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        body = b'{"entrypoint": "id"}'
        head = f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        try:
            return connection.recv(4096).decode(errors="replace")
        except OSError:
            return ""


def test_scratch_folder_is_private(run: Run) -> None:
    (scratch,) = run.folder.glob("study-*")
    assert scratch in run.session.parents
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    assert scratch.stat().st_uid == os.geteuid()


def test_token_file_becomes_private_and_its_token_is_not_used(run: Run) -> None:
    assert stat.S_IMODE(run.token_file.stat().st_mode) == 0o600
    environment = psutil.Process(run.process.children()[0].pid).environ()
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
    assert environment["RAY_AUTH_TOKEN"] != run.token_file.read_text()
    arguments = [argument for process in run.process.children(recursive=True) for argument in process.cmdline()]
    files = [path.read_text(errors="replace") for path in run.session.rglob("*") if path.is_file()]
    assert not [text for text in (*arguments, *files) if environment["RAY_AUTH_TOKEN"] in text]


@pytest.mark.parametrize("token", ["", "cd" * 32], ids=["none", "wrong"])
def test_client_without_the_token_is_rejected(run: Run, token: str) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", CLIENT, run.gcs]
    output = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert output.startswith("refused")
    assert "authoriz" in output.lower() or "authenticat" in output.lower(), output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_other_users_cannot_read_anything_of_the_run(run: Run) -> None:
    as_other_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    (scratch,) = run.folder.glob("study-*")
    environment = f"/proc/{run.process.children()[0].pid}/environ"
    sockets = [str(run.session / "sockets" / name) for name in ("raylet", "plasma_store")]
    assert subprocess.run([*as_other_user, "ls", "/"], check=False, capture_output=True).returncode == 0
    for command in (["ls", str(scratch)], ["cat", str(run.token_file)], ["cat", environment], ["stat", *sockets]):
        result = subprocess.run([*as_other_user, *command], check=False, capture_output=True, text=True)
        assert (result.returncode != 0, result.stdout) == (True, ""), command
        assert "Permission denied" in result.stderr
