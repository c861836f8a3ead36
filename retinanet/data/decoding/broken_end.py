"""JPEGs that break off: read where only the end marker or the last rows are missing."""

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

END = b"\xff\xd9"
# Two ways to go on where the data stop: nothing, which leaves grey or the last colour, and
# arbitrary bytes, which give other pixels from the first missing block on.
_TAILS = (b"", bytes(range(254, 0, -1)))
LEAST_ROWS, SHARE = 24, 1 / 20  # rows that may be missing: one row of blocks, or 5 % of the height
_START_OF_SCAN, _START_OF_FRAME = 0xDA, range(0xC0, 0xC4)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))


def complete_jpeg(data: bytes) -> tuple[Image.Image, int] | None:
    """Decode a JPEG that breaks off.

    Returns:
        The picture, and how many of its last rows are missing in the file (0 where only the end
        marker is); None where more is missing than `LEAST_ROWS` and `SHARE` allow, or the file is
        damaged otherwise.
    """
    data = data.rstrip(b"\xff")  # half a marker
    try:
        return _completed(data) if _all_scans_begin(data) else None
    except (OSError, ValueError, KeyError, IndexError, struct.error):
        return None


def _completed(data: bytes) -> tuple[Image.Image, int] | None:
    image, other = (Image.open(io.BytesIO(data + tail + END), formats=["JPEG"]) for tail in _TAILS)
    differs = np.flatnonzero(_rows(image) != _rows(other))
    missing = image.height - int(differs[0]) if len(differs) else 0
    return (image, missing) if missing <= max(LEAST_ROWS, SHARE * image.height) else None


def _rows(image: Image.Image) -> NDArray[np.void]:
    """Each row of pixels as one value that can be compared."""
    pixels = np.asarray(image).reshape(image.height, -1)
    return pixels.view(f"V{pixels.shape[1]}")[:, 0]


def has_end(path: str | Path) -> bool:
    """Whether a JPEG has its end marker: as its last bytes, or before what an app appended."""
    with open(path, "rb") as file:
        file.seek(-min(len(END), file.seek(0, io.SEEK_END)), io.SEEK_END)
        if file.read() == END:
            return True
        file.seek(0)
        data = file.read()
    scans = [start for kind, start in _segments(data) if kind == _START_OF_SCAN]
    return bool(scans) and data.find(END, scans[0]) >= 0


def _segments(data: bytes) -> list[tuple[int, int]]:
    """(kind, where its content starts) of each marker; none inside those that come before."""
    found: list[tuple[int, int]] = []
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 3:
        kind = data[place + 1]
        if kind in (0x00, 0xFF) or kind in _WITHOUT_LENGTH:  # a stuffed 255, a fill byte, a restart
            place += 1 if kind == 0xFF else 2
            continue
        found.append((kind, place + 4))
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return found


def _all_scans_begin(data: bytes) -> bool:
    """Whether there is a scan for the last bit of every coefficient of every colour.

    What is missing of a scan that has begun is seen in the pixels; one that is missing whole, as
    of a progressive JPEG, only makes the picture coarse.
    """
    exact: dict[int, set[int]] = {}  # colour: which of the 64 coefficients
    for kind, start in _segments(data):
        if kind in _START_OF_FRAME:
            exact = {data[start + 6 + 3 * k]: set() for k in range(data[start + 5])}
        elif kind == _START_OF_SCAN:
            count = data[start]
            first, last, bits = data[start + 1 + 2 * count : start + 4 + 2 * count]
            if bits & 15 == 0:
                for k in range(count):
                    exact[data[start + 1 + 2 * k]].update(range(first, last + 1))
    return all(len(coefficients) == 64 for coefficients in exact.values())
