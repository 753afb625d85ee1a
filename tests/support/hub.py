"""A local server of the Hugging Face hub's protocol, with repositories whose files are replaced by commits."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from safetensors.torch import save
from torch import Tensor

from models.catalog.hub_cache import WEIGHTS_FILE
from models.catalog.registry import published_weights
from models.encoders.vision import timm


@dataclass
class Repository:
    """The commits of a repository, each with the content of its weights; `main` is the last one."""

    commits: dict[str, bytes] = field(default_factory=dict)

    def content(self, revision: str) -> tuple[str, bytes] | None:
        """Return commit and content of a revision."""
        commit = next(reversed(self.commits)) if revision == "main" and self.commits else revision
        return (commit, self.commits[commit]) if commit in self.commits else None


@dataclass
class Hub:
    """A running hub."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""

    def commit(self, repository: str, content: bytes, commit: str | None = None) -> str:
        """Add a commit with this content of the weights, and return its hash."""
        name = commit or hashlib.sha1(content + repository.encode()).hexdigest()
        self.repositories.setdefault(repository, Repository()).commits[name] = content
        return name

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the environment of a process that uses this hub, and this folder as its cache."""
        return {
            "HF_ENDPOINT": self.url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*",
        }  # fmt: skip

    @property
    def files_url(self) -> str:
        """Return the URL of the server of large files, which has another name than the hub."""
        return self.url.replace("127.0.0.1", "localhost")

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        parts = unquote(path).strip("/").split("/")
        if parts[0] == "blobs":
            contents = (content for repository in self.repositories.values() for content in repository.commits.values())
            body = next(content for content in contents if sha256(content) == parts[1])
            return 200, {"Content-Type": "application/octet-stream"}, body
        if len(parts) != 5 or parts[2] != "resolve":
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        repository = self.repositories.get("/".join(parts[:2]))
        commit_content = repository.content(parts[3]) if repository is not None else None
        if commit_content is None:
            return 404, {"X-Error-Code": "RevisionNotFound" if repository else "RepoNotFound"}, b""
        commit, content = commit_content
        if parts[4] != WEIGHTS_FILE:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        return 302, {
            "Location": f"{self.files_url}/blobs/{sha256(content)}", "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content)),
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
        }, b""  # fmt: skip


def sha256(content: bytes) -> str:
    """Return the hash by which the hub identifies large files."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def local_hub() -> Iterator[Hub]:
    """Run a hub on this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = _respond  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def weights_content(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a file of weights."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})


def timm_weights(model: str, scale: float = 1.0) -> bytes:
    """Return the bytes of the file of a timm model, whose values are the same for equal `scale`."""
    state = timm.create_model(model).state_dict()
    return weights_content(
        {name: tensor * 0 + scale / (number + 1) for number, (name, tensor) in enumerate(state.items())}
    )


def repository_of(backbone: str, name: str) -> str:
    """Return the repository of published weights."""
    return published_weights(backbone, name).repository
