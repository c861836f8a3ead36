"""Lines on stdout and bars on stderr, from the main process only."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from retinanet.runtime.distributed import is_main_process

Item = TypeVar("Item")


def say(text: str) -> None:
    """Write a line to stdout, from the main rank only, at once (a pipe would hold it back)."""
    if is_main_process():
        # Names of files need be no text, and not every stdout can say every letter.
        encoding = sys.stdout.encoding or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        tqdm.write(text, file=sys.stdout)  # above the bars, if there are any
        sys.stdout.flush()


def shows_bars() -> bool:
    """True if stderr is a terminal, on which a bar can move."""
    return is_main_process() and sys.stderr.isatty()


def progress(items: Iterable[Item], *, total: int | None, desc: str) -> Iterator[Item]:
    """Pass `items` through, with a bar and an ETA on stderr when that is a terminal."""
    yield from tqdm(
        items, total=total, desc=desc, disable=not shows_bars(), leave=False, unit="img"
    )
