"""Job commands with servers that send invalid responses, with tokens, and with clusters that are still starting."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from cluster.jobs import client, dashboard
from study.cli.main import main
from tests.support.tiny import tiny, written

Capture = pytest.CaptureFixture[str]
Response = tuple[int, Mapping[str, str], bytes]
VERSION = {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": "x"}
NO_AGENT = b"No available agent to submit job, please try again later."
SECRET = "hunter2-hunter2"


def json_response(value: object) -> Response:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@dataclass
class FakeDashboard:
    """A server with fixed responses that records the requests it receives."""

    responses: dict[str, list[Response]]
    """By method and path, in order; the last one is repeated."""
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(responses: dict[str, list[Response]], host: str = "127.0.0.1") -> Iterator[FakeDashboard]:
    server = FakeDashboard(responses)

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            request = f"{self.command} {self.path}"
            server.requests.append((request, {name.lower(): value for name, value in self.headers.items()}))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            matching = server.responses.get(request, server.responses.get("*", [(404, {}, b"")]))
            status, headers, body = matching.pop(0) if len(matching) > 1 else matching[0]
            if not status:
                return self.connection.shutdown(socket.SHUT_RDWR)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            return None

        do_GET = do_POST = do_PUT = respond  # noqa: N815 - names of the base class

        def log_message(self, format: str, *values: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer((host, 0), Handler) as http:
        server.address = f"http://{host}:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Use an empty home folder, and reset the tokens that Ray caches from clusters of other tests."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    yield home
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture
def token_file(home: Path) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(SECRET)
    file.chmod(0o644)
    return file


def run_command(capsys: Capture, *arguments: str | Path) -> tuple[object, str, str]:
    """Return exit status, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return exit_info.value.code, *capsys.readouterr()


def run_rejected(capsys: Capture, *arguments: str | Path) -> str:
    """Run a command that must be rejected; return its only line on stderr."""
    status, out, err = run_command(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


INVALID_RESPONSES: dict[str, Response] = {
    "a page": (200, {"Content-Type": "text/html"}, b"<html>\n<b>hello</b>\n</html>\n"),
    "an empty response": (200, {}, b""),
    "a list": json_response([1, 2]),
    "a number": json_response(7),
    "null": json_response(None),
    "an object without a version": json_response({"x": 1}),
    "a version that is a list": json_response({"ray_version": [2]}),
    "a version that is a word": json_response({"ray_version": "new\nest"}),
    "deep nesting": (200, {}, b"[" * 100_000),
    "bytes": (200, {"Content-Encoding": "gzip"}, bytes(range(256))),
    "an error": (500, {}, b"Traceback (most recent call last):\n  \x1b]0;title\x07boom\n"),
    "an error without text": (502, {}, b""),
    "not found": (404, {}, b"nothing here"),
    "a closed connection": (0, {}, b""),
    "a broken redirect": (302, {"Location": "http://[::1"}, b""),
}


@pytest.mark.parametrize("response", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES)
def test_invalid_version_response_is_reported_in_one_line(capsys: Capture, response: Response) -> None:
    with serve({"*": [response]}) as server:
        line = run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert line.startswith(f"tiny: --address: {server.address} ")
    assert "allowed: the dashboard of a running Ray cluster" in line
    assert line.rstrip("\n").isprintable()


@pytest.mark.parametrize("command", ["logs", "stop", "status"])
@pytest.mark.parametrize(
    "response",
    [
        *(INVALID_RESPONSES[name] for name in ("a page", "a number", "null", "an error", "a closed connection")),
        json_response(["x"]),
        json_response([{"submission_id": "tiny-1"}]),
        json_response([{"type": "SUBMISSION", "status": "WELL", "entrypoint": "", "submission_id": "tiny-1"}]),
    ],
)
def test_invalid_jobs_response_is_reported_in_one_line(capsys: Capture, command: str, response: Response) -> None:
    with serve({"GET /api/version": [json_response(VERSION)], "*": [response]}) as server:
        line = run_rejected(capsys, command, "tiny", "--address", server.address)
    assert line.startswith(f"tiny: --address: {server.address} ")


def test_server_that_does_not_respond_times_out(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "VERSION_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        line = run_rejected(capsys, "logs", "tiny", "--address", address)
    assert f"{address} does not answer as a dashboard" in line


def test_redirect_is_not_followed_and_only_its_host_is_shown(capsys: Capture, token_file: Path) -> None:
    with serve({"*": [json_response(VERSION)]}) as target_server:
        target = f"{target_server.address}/login?ticket={SECRET}"
        with serve({"*": [(302, {"Location": target}, b"")]}) as server:
            line = run_rejected(capsys, "logs", "tiny", "--address", server.address)
        assert not target_server.requests
    assert f"{server.address} redirects to {target_server.address}; allowed: the dashboard" in line
    assert SECRET not in line


@pytest.mark.parametrize("location", ["/login", "http://me:hunter2-hunter2@x/", "//", "\x1b[31m"])
def test_redirect_is_reported_in_one_line(capsys: Capture, location: str) -> None:
    with serve({"*": [(307, {"Location": location}, b"")]}) as server:
        line = run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert "redirects to another " in line
    assert SECRET not in line


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter2-hunter2@head:8265",
        "http://hunter2-hunter2@head:8265",
        "me:hunter2-hunter2@head:8265",
        "https://127.0.0.1:8265\\@hunter2-hunter2",
        "ftp://me:hunter2-hunter2@head",
        "http://me:hunter2-hunter2@[::1",
    ],
)
@pytest.mark.parametrize("command", ["logs", "stop", "status", "run"])
def test_password_in_the_address_is_rejected_and_not_shown(
    capsys: Capture, tmp_path: Path, command: str, address: str
) -> None:
    study = written(tiny(), tmp_path) if command == "run" else "tiny"
    storage = ("--storage", tmp_path / "runs") if command == "run" else ()
    line = run_rejected(capsys, command, study, "--address", address, *storage)
    assert "--address: has a user or a password in it; allowed: " in line
    assert SECRET not in line


def test_remedy_for_a_password_is_the_token(capsys: Capture) -> None:
    line = run_rejected(capsys, "logs", "tiny", "--address", "http://me:pass@head:8265")
    assert line == (
        "tiny: --address: has a user or a password in it; allowed: the dashboard of a cluster, http://HEAD:8265; set "
        "RAY_AUTH_TOKEN to the cluster's token\n"
    )


INVALID_ADDRESSES = {
    "ftp": "ftp://head:8265",
    "file": "file:///etc/passwd",
    "ray": "ray://head:10001",
    "module": "os://head",
    "no scheme": "head:8265",
    "no host": "http://",
    "open bracket": "http://[::1:8265",
    "port": "http://head:99999",
    "digits of another script": "http://head:²",
    "long": "http://" + "a" * 5000,
    "long label": "http://" + "a" * 100 + ".org:8265",
    "newline": "http://127.0.0.1:82\n65",
    "escape": "http://\x1b]0;x\x07head:8265",
    "nul": "http://head\x00:8265",
    "space": "http://he ad:8265",
    "query": f"http://head:8265?token={SECRET}",
    "fragment": "http://head:8265/#/jobs",
    "not UTF-8": "http://head\udcff:8265",
    "other letters": "http://hëad:8265",
}


@pytest.mark.parametrize("address", INVALID_ADDRESSES.values(), ids=INVALID_ADDRESSES)
def test_invalid_address_is_rejected_in_one_short_line(capsys: Capture, address: str) -> None:
    line = run_rejected(capsys, "logs", "tiny", "--address", address)
    assert line.startswith("tiny: --address: ")
    assert "; allowed: " in line
    assert line.rstrip("\n").isprintable()
    assert len(line) < 350
    assert SECRET not in line


def test_ipv6_address_is_contacted(capsys: Capture) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
    line = run_rejected(capsys, "logs", "tiny", "--address", f"http://[::1]:{port}/")
    assert f"nothing answers at http://[::1]:{port} (Connection refused)" in line


def sent_tokens(server: FakeDashboard) -> set[str]:
    return {headers.get("authorization", "") for _, headers in server.requests}


def test_token_of_the_file_is_sent_to_this_machine_and_the_file_becomes_private(
    capsys: Capture, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy would receive the token
    with serve({"GET /api/version": [json_response(VERSION)], "*": [json_response([])]}) as server:
        run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert sent_tokens(server) == {f"Bearer {SECRET}"}
    assert token_file.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def another_machine() -> str:
    """Return an address of this machine in its network, which differs from the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # sends no packets
        except OSError:
            pytest.skip("this machine has no network")
        return str(route.getsockname()[0])


@pytest.fixture(params=["", "token"], ids=["mode unset", "mode token"])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set Ray's authentication mode, in which its client attaches the token itself."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setenv("RAY_AUTH_MODE", request.param)
        Config.initialize("")
        yield
    Config.initialize("")


@pytest.mark.usefixtures("mode")
def test_token_of_the_file_is_not_sent_unencrypted_to_another_machine(
    capsys: Capture, token_file: Path, another_machine: str
) -> None:
    with serve({"*": [(401, {}, b"Unauthorized")]}, another_machine) as server:
        line = run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert sent_tokens(server) == {""}
    assert f"{server.address} asks for a token, and that of ~/.ray/auth_token is not sent unencrypted to" in line
    assert "allowed: https, or this machine: ssh -L 8265:localhost:8265 HEAD; or set RAY_AUTH_TOKEN to what " in line


@pytest.mark.usefixtures("home")
def test_message_for_a_machine_without_token_names_no_token_file(capsys: Capture, another_machine: str) -> None:
    with serve({"*": [(401, {}, b"Unauthorized")]}, another_machine) as server:
        line = run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert f"{server.address} asks for a token, and this machine has none; allowed: https, or this machine" in line


def test_machine_that_requires_no_token_is_used_without_one(
    capsys: Capture, token_file: Path, another_machine: str
) -> None:
    with serve({"GET /api/version": [json_response(VERSION)], "*": [json_response([])]}, another_machine) as server:
        assert "has no job of study 'tiny'" in run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert sent_tokens(server) == {""}


@pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_token_from_a_variable_is_sent_to_the_given_address(
    capsys: Capture, tmp_path: Path, another_machine: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.setenv(variable, SECRET if variable == "RAY_AUTH_TOKEN" else str(tmp_path / "token"))
    with serve({"GET /api/version": [json_response(VERSION)], "*": [json_response([])]}, another_machine) as server:
        run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert sent_tokens(server) == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("token", [f"{SECRET}\r\nX-Other: 1", f"{SECRET}\x00", "ü" + SECRET, " "])
def test_token_that_is_invalid_in_a_header_is_not_shown(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str
) -> None:
    (tmp_path / "token").write_text(token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with serve({"*": [(401, {}, b"")]}) as server:
        line = run_rejected(capsys, "logs", "tiny", "--address", server.address)
    assert SECRET not in line


def test_missing_token_file_is_reported_in_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with serve({"*": [(401, {}, b"")]}) as server:
        run_rejected(capsys, "logs", "tiny", "--address", server.address)


def cluster_responses(submit_responses: list[Response]) -> dict[str, list[Response]]:
    return {
        "GET /api/version": [json_response(VERSION)],
        "GET /api/jobs/": [json_response([])],
        "POST /api/jobs/": submit_responses,
        "*": [(200, {}, b"")],  # packages
    }


SubmitFunction = Callable[[FakeDashboard], tuple[object, str, str]]


@pytest.fixture
def submit(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubmitFunction:
    monkeypatch.setattr(client, "AGENT_POLL_SECONDS", 0.01)
    file = written(tiny(), tmp_path)
    arguments = ("submit", file, "--storage", tmp_path / "runs", "--address")
    return lambda server: run_command(capsys, *arguments, server.address)


def test_submit_waits_for_the_job_agent_with_one_message(submit: SubmitFunction) -> None:
    starting: Response = (500, {}, NO_AGENT)
    with serve(
        cluster_responses([starting, starting, starting, json_response({"job_id": "x", "submission_id": "tiny-1"})])
    ) as server:
        status, out, err = submit(server)
    assert (status, out.startswith("submitted tiny-1; next: ")) == (0, True)
    assert err == f"the job agent of {server.address} is still starting; waiting for up to 60 s\n"
    assert [request for request, _ in server.requests].count("POST /api/jobs/") == 4


def test_submit_fails_if_the_job_agent_does_not_start(submit: SubmitFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "AGENT_SECONDS", 0.1)
    with serve(cluster_responses([(500, {}, NO_AGENT)])) as server:
        status, out, err = submit(server)
    assert (status, out) == (2, "")
    assert "still starting" in err.splitlines()[0]
    assert f"--address: the job agent of {server.address} did not start in 0.1 s; allowed: " in err.splitlines()[1]
    assert err.count("\n") == 2


def test_submit_does_not_retry_other_errors(submit: SubmitFunction) -> None:
    with serve(cluster_responses([(500, {}, b"the disk is full")])) as server:
        status, out, err = submit(server)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "the disk is full" in err
    assert [request for request, _ in server.requests].count("POST /api/jobs/") == 1
