"""What a run says: lines on stdout, progress bars on stderr; silent off the main rank.

It knows nothing of models or data.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def is_main_process() -> bool:
    """Whether this process speaks and writes files: rank 0, or a run without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Write a line to stdout, from the main rank only, at once (a pipe would hold it back)."""
    if is_main_process():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def progress(items: Iterable[Item], *, total: int, desc: str) -> Iterator[Item]:
    """Pass `items` through, with a bar and an ETA on stderr when that is a terminal."""
    disable = not (is_main_process() and sys.stderr.isatty())
    yield from tqdm(items, total=total, desc=desc, disable=disable, leave=False, unit="img")
