"""Servers at the address of a dashboard that answer nonsense, tokens that must not leave, a cluster that starts."""

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
Answer = tuple[int, Mapping[str, str], bytes]
VERSION = {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": "x"}
NO_AGENT = b"No available agent to submit job, please try again later."
SECRET = "hunter2-hunter2"


def as_json(value: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@dataclass
class Server:
    """Answers by path; what it was asked is kept."""

    answers: dict[str, list[Answer]]
    """By method and path; the last one stays."""
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    address: str = ""


@contextmanager
def served(answers: dict[str, list[Answer]], host: str = "127.0.0.1") -> Iterator[Server]:
    server = Server(answers)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked = f"{self.command} {self.path}"
            server.asked.append((asked, {name.lower(): value for name, value in self.headers.items()}))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = server.answers.get(asked, server.answers.get("*", [(404, {}, b"")]))
            status, headers, body = known.pop(0) if len(known) > 1 else known[0]
            if not status:
                return self.connection.shutdown(socket.SHUT_RDWR)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            return None

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that the library calls

        def log_message(self, format: str, *values: object) -> None:
            """Stay silent."""

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
    """Give the test an empty home folder, and reset what Ray keeps of tokens, such as of a cluster of another test."""
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


def ended(capsys: Capture, *words: str | Path) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code, *capsys.readouterr()


def refused(capsys: Capture, *words: str | Path) -> str:
    """Run a command that is refused; return its one line."""
    status, out, err = ended(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    return err


NONSENSE: dict[str, Answer] = {
    "a page": (200, {"Content-Type": "text/html"}, b"<html>\n<b>hello</b>\n</html>\n"),
    "an empty answer": (200, {}, b""),
    "a list": as_json([1, 2]),
    "a number": as_json(7),
    "null": as_json(None),
    "an object without a version": as_json({"x": 1}),
    "a version that is a list": as_json({"ray_version": [2]}),
    "a version that is a word": as_json({"ray_version": "new\nest"}),
    "deep nesting": (200, {}, b"[" * 100_000),
    "bytes": (200, {"Content-Encoding": "gzip"}, bytes(range(256))),
    "an error": (500, {}, b"Traceback (most recent call last):\n  \x1b]0;title\x07boom\n"),
    "an error without text": (502, {}, b""),
    "not found": (404, {}, b"nothing here"),
    "a closed connection": (0, {}, b""),
    "a broken redirect": (302, {"Location": "http://[::1"}, b""),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_instead_of_a_version_is_one_line(capsys: Capture, answer: Answer) -> None:
    with served({"*": [answer]}) as server:
        line = refused(capsys, "logs", "tiny", "--address", server.address)
    assert line.startswith(f"tiny: --address: {server.address} ")
    assert "allowed: the dashboard of a running Ray cluster" in line
    assert line.rstrip("\n").isprintable()


@pytest.mark.parametrize("command", ["logs", "stop", "status"])
@pytest.mark.parametrize(
    "answer",
    [
        *(NONSENSE[name] for name in ("a page", "a number", "null", "an error", "a closed connection")),
        as_json(["x"]),
        as_json([{"submission_id": "tiny-1"}]),
        as_json([{"type": "SUBMISSION", "status": "WELL", "entrypoint": "", "submission_id": "tiny-1"}]),
    ],
)
def test_nonsense_instead_of_jobs_is_one_line(capsys: Capture, command: str, answer: Answer) -> None:
    with served({"GET /api/version": [as_json(VERSION)], "*": [answer]}) as server:
        line = refused(capsys, command, "tiny", "--address", server.address)
    assert line.startswith(f"tiny: --address: {server.address} ")


def test_a_server_that_says_nothing_is_given_up(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "VERSION_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        line = refused(capsys, "logs", "tiny", "--address", address)
    assert f"{address} does not answer as a dashboard" in line


def test_a_redirect_is_not_followed_and_shows_no_more_than_where_it_leads(capsys: Capture, token_file: Path) -> None:
    with served({"*": [as_json(VERSION)]}) as elsewhere:
        target = f"{elsewhere.address}/login?ticket={SECRET}"
        with served({"*": [(302, {"Location": target}, b"")]}) as server:
            line = refused(capsys, "logs", "tiny", "--address", server.address)
        assert not elsewhere.asked
    assert f"{server.address} redirects to {elsewhere.address}; allowed: the dashboard" in line
    assert SECRET not in line


@pytest.mark.parametrize("location", ["/login", "http://me:hunter2-hunter2@x/", "//", "\x1b[31m"])
def test_a_redirect_to_anything_is_one_line(capsys: Capture, location: str) -> None:
    with served({"*": [(307, {"Location": location}, b"")]}) as server:
        line = refused(capsys, "logs", "tiny", "--address", server.address)
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
def test_a_password_in_the_address_is_refused_and_not_shown(
    capsys: Capture, tmp_path: Path, command: str, address: str
) -> None:
    what = written(tiny(), tmp_path) if command == "run" else "tiny"
    place = ("--storage", tmp_path / "runs") if command == "run" else ()
    line = refused(capsys, command, what, "--address", address, *place)
    assert "--address: has a user or a password in it; allowed: " in line
    assert SECRET not in line


def test_the_remedy_for_a_password_is_the_token(capsys: Capture) -> None:
    line = refused(capsys, "logs", "tiny", "--address", "http://me:pass@head:8265")
    assert line == (
        "tiny: --address: has a user or a password in it; allowed: the dashboard of a cluster, http://HEAD:8265; set "
        "RAY_AUTH_TOKEN to the cluster's token\n"
    )


ODD = {
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


@pytest.mark.parametrize("address", ODD.values(), ids=ODD)
def test_an_odd_address_is_one_short_line(capsys: Capture, address: str) -> None:
    line = refused(capsys, "logs", "tiny", "--address", address)
    assert line.startswith("tiny: --address: ")
    assert "; allowed: " in line
    assert line.rstrip("\n").isprintable()
    assert len(line) < 350
    assert SECRET not in line


def test_an_address_of_ipv6_is_reached(capsys: Capture) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    line = refused(capsys, "logs", "tiny", "--address", f"http://[::1]:{port}/")
    assert f"nothing answers at http://[::1]:{port} (Connection refused)" in line


def tokens(server: Server) -> set[str]:
    return {headers.get("authorization", "") for _, headers in server.asked}


def test_the_token_of_the_file_goes_to_this_machine_and_the_file_becomes_private(
    capsys: Capture, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # would see it
    with served({"GET /api/version": [as_json(VERSION)], "*": [as_json([])]}) as server:
        refused(capsys, "logs", "tiny", "--address", server.address)
    assert tokens(server) == {f"Bearer {SECRET}"}
    assert token_file.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def another_machine() -> str:
    """Return an address of this machine that others reach, for what is bound to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(route.getsockname()[0])


@pytest.fixture(params=["", "token"], ids=["mode unset", "mode token"])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set Ray's own switch, with which its client attaches the token by itself."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            patch.setenv("RAY_AUTH_MODE", request.param)
        Config.initialize("")
        yield
    Config.initialize("")


@pytest.mark.usefixtures("mode")
def test_the_token_of_the_file_is_not_sent_to_another_machine_unencrypted(
    capsys: Capture, token_file: Path, another_machine: str
) -> None:
    with served({"*": [(401, {}, b"Unauthorized")]}, another_machine) as server:
        line = refused(capsys, "logs", "tiny", "--address", server.address)
    assert tokens(server) == {""}
    assert f"{server.address} asks for a token, and that of ~/.ray/auth_token is not sent unencrypted to" in line
    assert "allowed: https, or this machine: ssh -L 8265:localhost:8265 HEAD; or set RAY_AUTH_TOKEN to what " in line


@pytest.mark.usefixtures("home")
def test_a_machine_without_token_is_not_said_to_have_one(capsys: Capture, another_machine: str) -> None:
    with served({"*": [(401, {}, b"Unauthorized")]}, another_machine) as server:
        line = refused(capsys, "logs", "tiny", "--address", server.address)
    assert f"{server.address} asks for a token, and this machine has none; allowed: https, or this machine" in line


def test_another_machine_that_asks_for_no_token_is_used_without(
    capsys: Capture, token_file: Path, another_machine: str
) -> None:
    with served({"GET /api/version": [as_json(VERSION)], "*": [as_json([])]}, another_machine) as server:
        assert "has no job of study 'tiny'" in refused(capsys, "logs", "tiny", "--address", server.address)
    assert tokens(server) == {""}


@pytest.mark.parametrize("variable", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_a_variable_names_is_sent_where_the_user_says(
    capsys: Capture, tmp_path: Path, another_machine: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.setenv(variable, SECRET if variable == "RAY_AUTH_TOKEN" else str(tmp_path / "token"))
    with served({"GET /api/version": [as_json(VERSION)], "*": [as_json([])]}, another_machine) as server:
        refused(capsys, "logs", "tiny", "--address", server.address)
    assert tokens(server) == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("token", [f"{SECRET}\r\nX-Other: 1", f"{SECRET}\x00", "ü" + SECRET, " "])
def test_a_token_that_no_header_can_hold_is_not_shown(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str
) -> None:
    (tmp_path / "token").write_text(token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with served({"*": [(401, {}, b"")]}) as server:
        line = refused(capsys, "logs", "tiny", "--address", server.address)
    assert SECRET not in line


def test_a_file_of_a_token_that_is_missing_is_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with served({"*": [(401, {}, b"")]}) as server:
        refused(capsys, "logs", "tiny", "--address", server.address)


def taking(agent: list[Answer]) -> dict[str, list[Answer]]:
    return {
        "GET /api/version": [as_json(VERSION)],
        "GET /api/jobs/": [as_json([])],
        "POST /api/jobs/": agent,
        "*": [(200, {}, b"")],  # packages
    }


Submit = Callable[[Server], tuple[object, str, str]]


@pytest.fixture
def submitted(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    monkeypatch.setattr(client, "AGENT_POLL_SECONDS", 0.01)
    file = written(tiny(), tmp_path)
    words = ("submit", file, "--storage", tmp_path / "runs", "--address")
    return lambda server: ended(capsys, *words, server.address)


def test_submit_waits_for_the_job_agent_and_says_so_once(submitted: Submit) -> None:
    starting: Answer = (500, {}, NO_AGENT)
    with served(taking([starting, starting, starting, as_json({"job_id": "x", "submission_id": "tiny-1"})])) as server:
        status, out, err = submitted(server)
    assert (status, out.startswith("submitted tiny-1; next: ")) == (0, True)
    assert err == f"the job agent of {server.address} is still starting; waiting for up to 60 s\n"
    assert [asked for asked, _ in server.asked].count("POST /api/jobs/") == 4


def test_submit_gives_up_where_the_job_agent_never_starts(submitted: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "AGENT_SECONDS", 0.1)
    with served(taking([(500, {}, NO_AGENT)])) as server:
        status, out, err = submitted(server)
    assert (status, out) == (2, "")
    assert "still starting" in err.splitlines()[0]
    assert f"--address: the job agent of {server.address} did not start in 0.1 s; allowed: " in err.splitlines()[1]
    assert err.count("\n") == 2


def test_submit_does_not_wait_for_another_error(submitted: Submit) -> None:
    with served(taking([(500, {}, b"the disk is full")])) as server:
        status, out, err = submitted(server)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "the disk is full" in err
    assert [asked for asked, _ in server.asked].count("POST /api/jobs/") == 1
