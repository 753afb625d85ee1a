"""A local server of the S3 protocol."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector, FileSystem, FileType

BUCKET = "bucket"


@dataclass
class ObjectStore:
    """A bucket on a server that can be stopped and restarted without losing its objects."""

    port: int
    _server: ThreadedMotoServer
    files: FileSystem = field(init=False)

    def __post_init__(self) -> None:
        self.files, _ = FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
        self.files.create_dir(BUCKET)

    def uri(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"

    def keys(self, prefix: str) -> dict[str, int]:
        """Return the keys below a prefix with their modification times in nanoseconds."""
        infos = self.files.get_file_info(FileSelector(f"{BUCKET}/{prefix}", recursive=True, allow_not_found=True))
        start = f"{BUCKET}/{prefix}/"
        return {info.path.removeprefix(start): info.mtime_ns for info in infos if info.type == FileType.File}

    def read(self, key: str) -> bytes:
        with self.files.open_input_stream(f"{BUCKET}/{key}") as stream:
            content: bytes = stream.read()
        return content

    def write(self, key: str, content: bytes) -> None:
        """Write an object under any key, including those that pyarrow rejects."""
        s3_backends["123456789012"]["aws"].put_object(BUCKET, key, content)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run a server, and set its address in the environment of this process and its children."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test-user")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        store = ObjectStore(port, server)
        yield store
        store.stop()
