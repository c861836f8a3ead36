"""Good files, changed at random, by the thousand: what the readers make of them.

    python -m tests.support.fuzzing csv classes coco --inputs 100000 --seed 1

A reader may give a result that is right in itself, or a DataError that can be shown to a user:
nothing else, in bounded time and memory, and without a word on stdout or stderr. Each input is a
function of (target, seed, number), so that one that fails can be had again: `--first NUMBER
--inputs 1`. It lies in the folder that is said at the start, also when the process died of it.
"""

import argparse
import contextlib
import faulthandler
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from retinanet.errors import DataError, printable
from tests.support.fuzz_targets import TARGETS

SECONDS = 30  # of the processor, for one input: torch takes ten to name a large storage
MOST_LINES = 22  # 20 problems, the number of others, how the file was read
MEGABYTES = 2500  # for one input: an image may have 179 million pixels, as Pillow's limit says


@dataclass
class Outcome:
    """What became of the inputs."""

    results: int = 0
    refused: int = 0
    slowest: tuple[float, int] = (0.0, 0)  # seconds of the processor, number
    peak: int = 0  # megabytes that this process had at most
    failures: dict[int, str] = field(default_factory=dict)  # number, and what went wrong


def inputs(target: str, seed: int, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The inputs of these numbers."""
    chosen = TARGETS[target]
    samples = chosen.samples()
    for number in numbers:
        rng = random.Random(f"{target} {seed} {number}")
        yield number, chosen.change(rng, rng.choice(samples), samples, chosen.words)


def fuzz(target: str, seed: int, numbers: Sequence[int], folder: Path) -> Outcome:
    """Give a reader inputs, and look at what comes of each."""
    outcome = Outcome(peak=peak_megabytes())
    path = folder / TARGETS[target].name
    with _captured(folder / "printed") as printed:
        for number, content in inputs(target, seed, numbers):
            path.write_bytes(content)
            started = time.process_time()
            try:
                TARGETS[target].read(path)
                outcome.results += 1
            except DataError as error:
                outcome.refused += 1
                _note(outcome, number, _bad_message(str(error), path.stem))
            except Exception:  # noqa: BLE001  this is what is looked for
                _note(outcome, number, traceback.format_exc())
            seconds = time.process_time() - started
            outcome.slowest = max(outcome.slowest, (seconds, number))
            _note(outcome, number, f"took {seconds:.1f} s" if seconds > SECONDS else "")
            outcome.peak, before = peak_megabytes(), outcome.peak
            _note(outcome, number, "much memory" if outcome.peak - before > MEGABYTES else "")
            text = printed()
            if text and not content.startswith((b"II", b"MM")):  # libtiff speaks for itself
                _note(outcome, number, f"printed {text!r}")
    return outcome


def peak_megabytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _note(outcome: Outcome, number: int, problem: str) -> None:
    if problem:
        outcome.failures.setdefault(number, problem)


def _bad_message(message: str, name: str) -> str:
    """What a user could not be shown; empty where nothing is."""
    lines = message.split("\n")
    renumbered = "renumbered, the file reads" in lines[0]
    if name not in lines[0]:
        return f"does not name the file: {message!r}"
    if not renumbered and (len(lines) > MOST_LINES or max(map(len, lines)) > 1000):
        return f"too long: {message!r}"
    if any(printable(line) != line for line in lines):
        return f"control characters: {message!r}"
    return ""


@contextlib.contextmanager
def _captured(path: Path) -> Iterator[Callable[[], str]]:
    """Send stdout and stderr, also those of C libraries, to a file; gives what is new in it."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("w+b", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def fresh() -> str:
            sys.stdout.flush()
            sys.stderr.flush()
            file.seek(0)
            text = file.read().decode(errors="replace")
            file.seek(0)
            file.truncate()
            return text

        try:
            yield fresh
        finally:
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Try many inputs and say what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+", choices=tuple(TARGETS), metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target (10000)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (0)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="fuzzing_"))
    limit = 2**20 * 2 * MEGABYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # for the sake of the machine
    faulthandler.enable(file=os.fdopen(os.dup(2), "w"))
    sys.stdout.write(f"Inputs lie in {folder}\n")
    bad = 0
    for target in args.targets:
        started = time.monotonic()
        outcome = fuzz(target, args.seed, range(args.first, args.first + args.inputs), folder)
        bad += len(outcome.failures)
        sys.stdout.write(
            f"{target}: seed {args.seed}, inputs {args.first} to {args.first + args.inputs - 1}:"
            f" {outcome.results:,} results, {outcome.refused:,} DataErrors,"
            f" {len(outcome.failures):,} failures; slowest {outcome.slowest[0]:.2f} s (number"
            f" {outcome.slowest[1]}); at most {outcome.peak:,} MB;"
            f" {time.monotonic() - started:.0f} s\n"
        )
        for number, problem in list(outcome.failures.items())[:20]:
            sys.stdout.write(f"--- {target} {number}: {problem[-1500:]}\n")
        sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
