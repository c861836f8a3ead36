"""The one decoder: a file becomes upright 8-bit RGB; its size is read without decoding.

Also the arithmetic of resizing and padding. It knows nothing of boxes or tensors.
"""

import glob
import logging
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from retinanet.errors import DataError, printable

# Only these, whatever the file is called: Pillow would also start Ghostscript for an EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")


# By these a folder's images are told from its other files.
SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".jp2",
}


_TURNS = {  # EXIF orientation: how to turn the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_SIDEWAYS = (5, 6, 7, 8)  # the orientations that exchange height and width


Size = tuple[int, int]  # (height, width) of an upright picture


UNKNOWN: Size = (0, 0)  # of one that is missing or cannot be read


# What Pillow warns of (a large picture, odd EXIF) names no file; what fails raises instead.
warnings.filterwarnings("ignore", module=r"PIL\.")


logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode a file of any colour mode.

    Alpha is dropped, not composited: the colours stored are what other tools (OpenCV,
    torchvision) read too, and what an annotator's background was is not known. Grey values of 16
    bits are divided by 257, so that black and white stay black and white. Of an animation the
    first frame is read.

    Returns:
        [H, W, 3] RGB, upright (EXIF orientation applied).

    Raises:
        DataError: the file is missing, no image, damaged, or larger than Pillow's limit.
    """
    with _opened(path) as image:
        # Before the pixels are decoded, as `image_size` does; Pillow turns a TIFF by itself.
        turn = None if image.format == "TIFF" else _TURNS.get(_orientation(image))
        rgb = _rgb(image)
        return np.array(rgb if turn is None else rgb.transpose(turn))


def image_size(path: str | Path) -> Size:
    """(height, width) in pixels of the upright picture, from the file's header."""
    with _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # some versions of Pillow give the turned size
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def is_sideways(path: str | Path) -> bool:
    """Whether EXIF orientation exchanges the height and width of the stored picture."""
    with _opened(path) as image:
        return _orientation(image) in _SIDEWAYS


def resized_size(
    height: int, width: int, min_side: int, max_side: int
) -> tuple[tuple[int, int], float]:
    """The size that brings the smaller side to `min_side`, or else the larger to `max_side`.

    Returns:
        ((height, width), scale): whole pixels, at least 1, and the scale before rounding.
    """
    scale = min(min_side / min(height, width), max_side / max(height, width))
    return (max(1, round(height * scale)), max(1, round(width * scale))), scale


def padded_size(height: int, width: int, multiple: int = 32) -> tuple[int, int]:
    """(height, width) rounded up to a multiple of `multiple` pixels."""
    return height + -height % multiple, width + -width % multiple


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An open, not yet decoded image; whatever goes wrong in the block becomes a DataError."""
    name = printable(path)  # a line break in it would split the message
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: {reason}; expected an image file; correct the path") from error
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(f"{name}: {found}; expected an image file; correct the path")
    if status.st_size == 0:
        raise DataError(f"{name}: empty (0 bytes); expected an image; replace or remove it")
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Exception as error:  # damaged or hostile bytes make the decoders raise anything
        found = _why(path, error)
        raise DataError(
            f"{name}: {found}; expected a whole {', '.join(FORMATS)} image; replace or remove it"
        ) from error


def _why(path: str | Path, error: Exception) -> str:
    """What was found in a file that could not be read."""
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            return f"not an image (it starts with {file.read(12)!r})"
    return f"cannot be decoded ({str(error) or type(error).__name__})"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation in the header, 1 (upright) where there is none."""
    # The base class's: PNG's own decodes the picture to look for EXIF behind it.
    try:
        orientation: int = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return orientation
    except (SyntaxError, ValueError, struct.error):  # a damaged EXIF block of a good picture
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies in any case


def _eight_bits(values: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    """Scale grey values of more than 8 bits: integers of 16 bits, floats of 0..1 or 0..255."""
    low, high = float(values.min()), float(values.max())
    top = 65535 if mode != "F" else 255 if high > 1 else 1
    if not 0 <= low <= high <= top:
        raise ValueError(f"grey values {low:g} to {high:g}, expected 0 to {top}")
    return (values.astype(np.float32) * (255 / top) + 0.5).astype(np.uint8)


def image_files(path: str | Path) -> list[Path]:
    """The images that a path names, in order of name.

    Args:
        path: an image; a folder, of which the images are taken and not its folders'; or a pattern
            such as `photos/**/*.jpg`.

    Raises:
        DataError: it is a folder without images, or a pattern that fits none.
    """
    path = Path(path)
    if path.is_dir():
        found = list(path.iterdir())
    elif path.exists() or not glob.has_magic(str(path)):
        return [path]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    images = sorted(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())
    if not images:
        raise DataError(f"{path}: no images there; expected some; correct the path")
    return images
