"""Processes forked from this one: they begin where a new one is after its seconds of imports."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from retinanet.training.run_folder import RunFolder

FORK = multiprocessing.get_context("fork")
READY = "ready for a signal"
Main = Callable[[Sequence[str]], int]


class Forked:
    """A script's main in a process of its own: own session, own output, own end.

    Args:
        main: given the flags as text; what it returns is the exit code.
        flags: of the script.
        environment: what it has besides this process's.
    """

    def __init__(
        self, main: Main, flags: Sequence[object], environment: Mapping[str, str] | None = None
    ) -> None:
        pipes = [os.pipe(), os.pipe()]
        sys.stdout.flush()
        sys.stderr.flush()
        words = [str(flag) for flag in flags]
        self.process = FORK.Process(target=_run, args=(main, words, environment or {}, pipes))
        self.process.start()
        for _, writer in pipes:
            os.close(writer)
        self.stdout, self.stderr = (open(reader, encoding="utf-8") for reader, _ in pipes)
        assert self.process.pid
        self.pid = self.process.pid

    def read_until(self, beginning: str) -> None:
        """Read its stdout to a line that begins so."""
        assert any(line.startswith(beginning) for line in self.stdout), self.end()

    def end(self, seconds: float = 120) -> tuple[int, str, str]:
        """Wait for its end: exit code, or minus the signal's number; the rest of what it said."""
        before = signal.signal(signal.SIGALRM, lambda *_: os.killpg(self.pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            with self.stdout, self.stderr:
                said, errors = self.stdout.read(), self.stderr.read()
            self.process.join()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert self.process.exitcode is not None
        return self.process.exitcode, said, errors


def _run(
    main: Main, words: list[str], environment: Mapping[str, str], pipes: list[tuple[int, int]]
) -> None:
    """In the fork: become a process of its own, then the script."""
    os.setsid()
    os.environ.update(environment)
    for target, (reader, writer) in zip((1, 2), pipes, strict=True):
        os.close(reader)
        os.dup2(writer, target)
        os.close(writer)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.exit(main(words))


def peers(
    count: int, main: Main, flags: Sequence[object], environment: Mapping[str, str] | None = None
) -> list[Forked]:
    """The processes that `torchrun --nproc_per_node=COUNT` would start, without its agent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared |= {"WORLD_SIZE": str(count), **(environment or {})}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [Forked(main, flags, shared | rank) for rank in ranks]


def waiting_for_signals(main: Main, steps: int, signals: int = 1) -> Main:
    """A training script that, after so many steps, says `READY` and waits for a signal to stop.

    To be forked. It goes on a second after the first of several, for two may come as one.
    """
    taken, received = 0, 0

    def wait(_: RunFolder) -> bool:
        """Called after every step."""
        nonlocal taken
        taken += 1
        if taken == steps:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, counted(signal.getsignal(number)))
            sys.stdout.write(READY + "\n")
            sys.stdout.flush()
            while not received:
                time.sleep(0.01)
            end = time.monotonic() + 1
            while received < signals and time.monotonic() < end:
                time.sleep(0.01)
        return False

    def counted(handler: Callable[..., object]) -> Callable[..., None]:
        def count_and_handle(*arguments: object) -> None:
            nonlocal received
            received += 1
            handler(*arguments)

        return count_and_handle

    def main_that_waits(words: Sequence[str]) -> int:
        RunFolder.state_is_due = wait  # type: ignore[method-assign]
        return main(words)

    return main_that_waits
