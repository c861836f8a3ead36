"""metrics.jsonl: one record a line, in order; of any length, in little memory.

A record of a step is `{"kind": "step", "epoch", "iteration", ...}`, one of an epoch, after its
steps, `{"kind": "epoch", "epoch", ...}`. A hundred epochs of COCO are 6 million lines, 1.7 GB.
"""

import json
import math
from bisect import bisect_left
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

METRICS_FILE = "metrics.jsonl"

MOST_STEPS = 20_000  # records of steps that are read: more than any curve has points

Place: TypeAlias = tuple[float, float]
"""Epoch and iteration, infinite for the epoch's own record: records ascend by it."""

_NOWHERE = (math.inf, math.inf)


def read_records(path: Path, most_steps: int = MOST_STEPS) -> list[dict[str, Any]]:
    """Read all records of epochs, and those of steps evenly thinned out, up to a damaged line.

    Args:
        path: of the file; without one there are no records.
        most_steps: about as many records of steps are kept; all of a file that has fewer.

    Returns:
        The records, in their order.
    """
    records: list[dict[str, Any]] = []
    if not path.is_file():
        return records
    stretch = path.stat().st_size / most_steps  # bytes, of which one record is kept
    begin, wanted = 0, 0.0
    with path.open("rb") as stream:
        for line in stream:
            of_step = not line.startswith(b'{"kind": "epoch"')
            if begin >= wanted or not of_step:
                try:
                    records.append(json.loads(line))
                except ValueError:
                    break
            if begin >= wanted and of_step:
                wanted = begin + stretch
            begin += len(line)
    return records


def cut_records(path: Path, epoch: int, step: int, epoch_record: str = "") -> None:
    """Drop what a run will do again, in place, and make sure that it can be written on.

    Args:
        path: of the file; an empty one is made.
        epoch: that comes next.
        step: of it that comes next.
        epoch_record: the record of the epoch before, a line, which is added if it was lost; not to
            a file that has nothing before it, as in another folder.
    """
    path.touch()
    with path.open("r+b") as stream:
        stream.truncate(_first_at(stream, (epoch, step)))
        line = epoch_record.encode() + b"\n"
        end = stream.seek(0, 2)
        if end and _place(line) != _NOWHERE and _first_at(stream, _place(line)) == end:
            stream.seek(end)
            stream.write(line)


def _first_at(stream: BinaryIO, place: Place) -> int:
    """The byte at which the first record of this place or a later one begins; else the end."""
    size = stream.seek(0, 2)
    found = bisect_left(range(size), place, key=lambda byte: _place_behind(stream, byte))
    return _next_line(stream, found)


def _place_behind(stream: BinaryIO, byte: int) -> Place:
    """The place of the first record that begins at a byte or behind it."""
    _next_line(stream, byte)
    return _place(stream.readline())


def _place(line: bytes) -> Place:
    """The place of a record; behind all others if the line was cut by a kill, or is none."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else {}
        return float(record["epoch"]), float(record.get("iteration", math.inf))
    except (AttributeError, KeyError, TypeError, ValueError):
        return _NOWHERE


def _next_line(stream: BinaryIO, byte: int) -> int:
    """Go to the first byte, from this one on, that begins a line."""
    if byte == 0:
        return stream.seek(0)
    stream.seek(byte - 1)
    stream.readline()
    return stream.tell()
