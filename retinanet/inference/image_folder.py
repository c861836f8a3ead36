"""Images without annotations, as a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotations import Annotations
from retinanet.data.datasets import ImageDataset, Transform
from retinanet.data.images import UNKNOWN, Size, image_files, image_size


class ImageFiles(ImageDataset):
    """Images without annotations, opened when they are asked for.

    Args:
        path: a file, a folder, a pattern such as `photos/**/*.jpg`, or several of these.
        transform: what each sample goes through.

    Raises:
        DataError: a path names no image.
    """

    def __init__(
        self, path: str | Path | Sequence[str | Path], transform: Transform | None = None
    ) -> None:
        given = [path] if isinstance(path, str | Path) else path
        self.transform = transform
        self.class_names, self.notes, self.repaired = (), [], {}
        paths = list(dict.fromkeys(image for name in given for image in image_files(name)))
        self.images_root, self._files = Path(), [str(path) for path in paths]
        self._sizes = np.full((len(paths), 2), UNKNOWN, np.int32)
        nothing = np.zeros(len(paths), np.int64)
        self._data = Annotations(
            names=tuple(image.name for image in paths),
            first_lines=nothing,
            offsets=np.zeros(len(paths) + 1, np.int64),
            boxes=np.zeros((0, 5)),
            lines=nothing[:0],
        )

    def load_image(self, image_index: int) -> NDArray[np.uint8]:
        """[H, W, 3] RGB, upright."""
        image = super().load_image(image_index)
        self._sizes[image_index] = (image.shape[0], image.shape[1])
        return image

    def image_size(self, image_index: int) -> Size:
        """(height, width) of the upright image, from its header if it was not loaded before."""
        if super().image_size(image_index) == UNKNOWN:
            self._sizes[image_index] = image_size(self.image_path(image_index))
        return super().image_size(image_index)
