"""No test can leave this machine by accident (conftest.py), but two processes can still talk."""

import socket
import urllib.request

import pytest


@pytest.mark.parametrize(
    "leave",
    [
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
        lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 80)),
        lambda: socket.getaddrinfo("example.org", 80),
        lambda: urllib.request.urlopen("https://example.org"),
    ],
)
def test_every_way_out_is_closed(leave) -> None:
    with pytest.raises(OSError, match="tests have no network"):
        leave()


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
