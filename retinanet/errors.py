"""The one exception for what a user can mend, and how names and values stand in its message."""

import re
import reprlib
from collections.abc import Iterable, Mapping

# What ends a line, moves a terminal's cursor, or is no character at all.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(name: object) -> str:
    """A path or a name for a message, with backslashes for what would break its line."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(name))


def reason(error: Exception) -> str:
    """An exception's first line, shortened, without torch's advice to trust the file."""
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines() or [""]
    return f"{type(error).__name__}: {printable(lines[0])[:100]}"


class DataError(ValueError):
    """A file, a row, a flag's value or a checkpoint is not as it must be.

    The message says where, what was found, what was expected and what to do. The scripts print it
    without a traceback and exit with 1.
    """

    def __init__(self, message: str) -> None:
        # A loader worker's error arrives with the worker's traceback in front of the message.
        super().__init__(message.rsplit("DataError: ", 1)[-1].rstrip("\n"))


MOST_SHOWN = 600  # characters of a value

_short = reprlib.Repr()
_short.maxstring = 80
_short.maxlevel = 2  # a list of lists, and no deeper: six of six of six grow beyond a message


def shown(value: object) -> str:
    """A value as it stands in a message: quoted, escaped, cut when long."""
    return _short.repr(value)[:MOST_SHOWN]


def listed(counts: Mapping[str, int]) -> str:
    """Kinds and how many there are of each, without those of none."""
    return ", ".join(f"{kind}: {count:,}" for kind, count in counts.items() if count)


def counted(count: int, noun: str) -> str:
    """`1 box`, `2 boxes`, `1,000 images`."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x")) else "s"
    return f"{count:,} {noun}{ending}"


def first_few(names: Iterable[str], most: int = 5) -> str:
    """The first names of many, each printable and cut when long; `nothing` of none."""
    given = [printable(name)[:120] for name in names]
    return (", ".join(given[:most]) or "nothing") + (" ..." if len(given) > most else "")
