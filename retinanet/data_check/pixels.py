"""Every image of a data set decoded, before training meets a broken one on the second day."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from retinanet.data.images import read_image
from retinanet.errors import DataError
from retinanet.runtime.console import progress
from retinanet.runtime.device import usable_workers

ONE_COLOUR = 2  # most that the values of a channel may differ, for the noise of a JPEG


class Decoded(NamedTuple):
    """Images that are of no use, by their positions."""

    unreadable: dict[int, str]
    """Why each cannot be decoded."""
    one_colour: list[int]


def decode_all(paths: Sequence[Path]) -> Decoded:
    """Decode images, as many at a time as there are processors."""

    def look(path: Path) -> str | bool:
        """Why an image cannot be decoded, or whether it is of one colour."""
        try:
            rows = read_image(path).reshape(-1, 3)
        except DataError as error:
            return str(error)
        return bool((rows.max(axis=0) - rows.min(axis=0)).max() <= ONE_COLOUR)

    with ThreadPoolExecutor(usable_workers(16)) as pool:
        looks = progress(pool.map(look, paths), total=len(paths), desc="decode")
        found = dict(enumerate(looks))
    return Decoded(
        {k: reason for k, reason in found.items() if isinstance(reason, str)},
        [k for k, plain in found.items() if plain is True],
    )
