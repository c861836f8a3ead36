"""What holds for every test: one thread, no network, no time limit of Hypothesis."""

import os
import socket
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.support.narrow import narrow_network

settings.register_profile("no_deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no_deadline")
torch.set_num_threads(1)  # the same sums everywhere, and no fight over few cores


def _forget_hotcoco() -> None:
    """Keep hotcoco out of forks, in which its threads do not live on and are waited for."""
    sys.modules["hotcoco"] = None  # type: ignore[assignment]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_hotcoco)


def _is_local(address: object) -> bool:
    """Whether an address stays on this machine: a Unix socket's path, or loopback."""
    host = address[0] if isinstance(address, tuple) else None
    return host in (None, "", "localhost", "::1") or str(host).startswith("127.")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail every way out of this machine, as on one without a network."""
    if request.node.get_closest_marker("network"):
        return
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)  # a proxy on this machine would be a way out

    def guard(owner: object, name: str, position: int) -> None:
        """Look at the address, the argument at `position`, before calling `owner.name`."""
        real = getattr(owner, name)

        def guarded(*args: object, **kwargs: object) -> object:
            address = args[position] if name != "getaddrinfo" else (args[position],)
            if not _is_local(address):
                raise OSError(f"tests have no network, but {name} was called with {address}")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, guarded)

    guard(socket.socket, "connect", 1)
    guard(socket.socket, "connect_ex", 1)
    guard(socket.socket, "sendto", -1)
    guard(socket, "getaddrinfo", 0)


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """For a module's tests the network is narrow; see `narrow_network`."""
    with narrow_network():
        yield
