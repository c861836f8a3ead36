"""Requests to stop: SIGINT and SIGTERM as a question that a run asks where it can stop well."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, NoReturn, TypeVar

Item = TypeVar("Item")
SAME_REQUEST = 1.0  # seconds in which signals to stop count as one


class StoppedError(Exception):
    """The process was asked to stop by a signal; `advice` says how to go on."""

    def __init__(self, signal_number: int, advice: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; {advice}".strip("; "))
        self.signal_number = signal_number


class StopRequest:
    """SIGINT and SIGTERM as a question that the run asks where it can stop well.

    The first signal is noted; inside `at_once` it raises `StoppedError` where it comes. Another one
    ends the process as if nothing were here, but for those that come with the first: `timeout` and
    torchrun send theirs twice.

    Args:
        advice: how to go on, for the message.
    """

    active: ClassVar["StopRequest | None"] = None
    """The one whose context this process is in."""

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self.signal_number: int | None = None
        self._taken = 0.0  # when, seconds
        self._raises = False
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "StopRequest":
        StopRequest.active = self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        StopRequest.active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_asked(self) -> None:
        """Stop here if a signal has come."""
        if self.signal_number:
            raise StoppedError(self.signal_number, self.advice)

    def stop(self) -> NoReturn:
        """Stop here, because this process or another of the run was asked to."""
        raise StoppedError(self.signal_number or signal.SIGTERM, self.advice)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While nothing would be lost: a signal need not wait."""
        self.raise_if_asked()
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    @staticmethod
    @contextmanager
    def held() -> Iterator[None]:
        """While something would be left half made: a signal inside `at_once` stops at the end."""
        request = StopRequest.active
        raises = request is not None and request._raises
        if request:
            request._raises = False
        try:
            yield
        finally:
            if request:
                request._raises = raises
        if request and raises:
            request.raise_if_asked()

    def while_waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; a signal while one of them is waited for stops here at once."""
        iterator = iter(items)
        while True:
            with self.at_once():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader worker that was just forked; signals are the main process's
        if self.signal_number is None:
            self.signal_number, self._taken = number, time.monotonic()
            if self._raises:
                self.stop()
        elif time.monotonic() - self._taken > SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def leave_signals_to_main(worker: int) -> None:
    """A loader worker ignores what all processes are sent: Ctrl-C, and a batch system's SIGTERM.

    The main process decides; only its own SIGTERM, by which it ends its workers, ends one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere nobody can tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_on_sigterm_of_parent, daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_on_sigterm_of_parent() -> None:
    """SIGTERM is blocked in this process's threads; take it here."""
    parent = multiprocessing.parent_process()
    while parent and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
