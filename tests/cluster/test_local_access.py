"""Who reaches the cluster that a local run starts: nobody from other machines, no other user of this one."""

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
STRANGER = """
import sys
from ray._raylet import GcsClient
try:
    print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, 5))
except Exception as error:
    print("refused", type(error).__name__, error)
"""


@dataclass(frozen=True)
class Run:
    """A local cluster under way, started with a umask of 022 by a user whose token file others could read."""

    process: psutil.Process
    folder: Path
    session: Path
    gcs: str
    token_file: Path

    def listeners(self) -> dict[str, psutil.Process]:
        """Return the addresses on which its processes accept connections."""
        family = {each.pid: each for each in (self.process, *self.process.children(recursive=True))}
        found = psutil.net_connections(kind="inet")
        return {
            f"{each.laddr.ip} {each.laddr.port}": family[each.pid]
            for each in found
            if each.status == psutil.CONN_LISTEN and each.pid in family
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


def test_neither_dashboard_nor_autoscaler_is_left(run: Run) -> None:
    words = [" ".join(each.cmdline()) for each in run.process.children(recursive=True)]
    assert any("gcs_server" in each for each in words)
    assert not [each for each in words if "dashboard/dashboard.py" in each or "/autoscaler/" in each]


@pytest.mark.parametrize(
    "request_line", ["GET /metrics", "POST /api/job_agent/jobs/", "POST /get_or_create_runtime_env", "GET /api/jobs/"]
)
def test_a_request_without_the_token_is_refused_by_every_server(run: Run, request_line: str) -> None:
    answers = [answer_of(int(address.split()[1]), request_line) for address in run.listeners()]
    assert {answer.split()[1] for answer in answers if answer.startswith("HTTP/")} == {"401"}


def answer_of(port: int, request_line: str) -> str:
    """Return what a server says to a request without a token; those that speak gRPC close the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        body = b'{"entrypoint": "id"}'
        head = f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        try:
            return connection.recv(4096).decode(errors="replace")
        except OSError:
            return ""


def test_the_folder_of_a_run_is_closed_to_other_users(run: Run) -> None:
    (scratch,) = run.folder.glob("study-*")
    assert scratch in run.session.parents
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    assert scratch.stat().st_uid == os.geteuid()


def test_the_token_file_becomes_private_and_is_not_the_token_of_the_run(run: Run) -> None:
    assert stat.S_IMODE(run.token_file.stat().st_mode) == 0o600
    environment = psutil.Process(run.process.children()[0].pid).environ()
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
    assert environment["RAY_AUTH_TOKEN"] != run.token_file.read_text()
    told = [word for each in run.process.children(recursive=True) for word in each.cmdline()]
    written = [path.read_text(errors="replace") for path in run.session.rglob("*") if path.is_file()]
    assert not [text for text in (*told, *written) if environment["RAY_AUTH_TOKEN"] in text]


@pytest.mark.parametrize("token", ["", "cd" * 32], ids=["none", "wrong"])
def test_a_client_without_the_token_is_refused(run: Run, token: str) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    words = [sys.executable, "-c", STRANGER, run.gcs]
    told = subprocess.run(words, env=variables, capture_output=True, text=True, check=True).stdout
    assert told.startswith("refused")
    assert "authoriz" in told.lower() or "authenticat" in told.lower(), told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_reads_nothing_of_a_run(run: Run) -> None:
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    (scratch,) = run.folder.glob("study-*")
    environment = f"/proc/{run.process.children()[0].pid}/environ"
    sockets = [str(run.session / "sockets" / name) for name in ("raylet", "plasma_store")]
    assert subprocess.run([*stranger, "ls", "/"], check=False, capture_output=True).returncode == 0
    for words in (["ls", str(scratch)], ["cat", str(run.token_file)], ["cat", environment], ["stat", *sockets]):
        read = subprocess.run([*stranger, *words], check=False, capture_output=True, text=True)
        assert (read.returncode != 0, read.stdout) == (True, ""), words
        assert "Permission denied" in read.stderr
