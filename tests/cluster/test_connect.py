import socket

import pytest

from cluster.connect import connected


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = pytest.raises(ConnectionError, match=rf"nothing answers at 127.0.0.1:{port} .*; allowed: HOST:PORT")
    with refused, connected(f"127.0.0.1:{port}"):
        pytest.fail("joined nothing")
