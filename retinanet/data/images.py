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
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from retinanet.data.decoding.broken_end import complete_jpeg, has_end
from retinanet.data.decoding.deep import (
    TIFF_MAGICS,
    DeepTiff,
    eight_bits,
    is_deep_png,
    pillow_misreads,
    read_deep_png,
)
from retinanet.data.decoding.formats import (
    HEAD,
    NAMES,
    SUFFIXES,
    UnreadableError,
    readable_formats,
    too_large,
    unread_kind,
)
from retinanet.errors import DataError, printable, reason

_TURNS = {  # EXIF orientation: how to turn the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_JPEGS = ("JPEG", "MPO")
_SIDEWAYS = (5, 6, 7, 8)  # the orientations that exchange height and width
MOST_LOOKED_AT = 100_000  # files of a tree, for a message
Size = tuple[int, int]  # (height, width) of an upright picture
UNKNOWN: Size = (0, 0)  # of one that is missing or cannot be read

# What the decoders warn of (a large picture, odd EXIF) names no file; what fails raises instead.
warnings.filterwarnings("ignore", module=r"PIL\.")
for _library in ("PIL", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())


class Decoded(NamedTuple):
    """A decoded file."""

    pixels: NDArray[np.uint8]
    """[H, W, 3] RGB, upright (EXIF orientation applied)."""
    repaired: str
    """What was put right, as the end of a sentence on the file; "" where it is whole."""


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode a file of any format of `decoding.formats` and any colour mode.

    Alpha is dropped, not composited: the colours stored are what other tools (OpenCV,
    torchvision) read too, and what an annotator's background was is not known. Values of more
    than 8 bits are scaled as `decoding.deep.eight_bits` says. Of an animation the first frame is
    read. A JPEG may lack its end marker or its last rows (`decoding.broken_end`).

    Returns:
        [H, W, 3] RGB, upright (EXIF orientation applied).

    Raises:
        DataError: the file is missing, no image, damaged, or larger than Pillow's limit.
    """
    return decode_image(path).pixels


def decode_image(path: str | Path) -> Decoded:
    """Decode a file as `read_image` does, and say what was put right."""
    with _opened(path) as image:
        # Before the pixels are decoded, as `image_size` does; Pillow turns a TIFF by itself.
        turn = None if isinstance(image, TiffImageFile) else _TURNS.get(_orientation(image))
        rgb, repaired = _rgb(image, path)
        return Decoded(np.array(rgb if turn is None else rgb.transpose(turn)), repaired)


def small_grey(path: str | Path, width: int, height: int) -> NDArray[np.uint8]:
    """[height, width] brightness of the upright picture, whatever its shape, quickly.

    A JPEG is decoded at an eighth to the whole of its size, as is enough.

    Raises:
        DataError: as `read_image`.
    """
    with _opened(path) as image:
        turn = None if isinstance(image, TiffImageFile) else _TURNS.get(_orientation(image))
        if isinstance(image, Image.Image):
            image.draft("L", (2 * max(width, height),) * 2)
        small = _rgb(image, path)[0].convert("L")
        upright = small if turn is None else small.transpose(turn)
        return np.asarray(upright.resize((width, height), Image.Resampling.BOX))


def image_size(path: str | Path) -> Size:
    """(height, width) in pixels of the upright picture, from the file's header."""
    with _opened(path) as image:
        return _upright_size(image)


def inspect_image(path: str | Path) -> tuple[Size, str]:
    """(height, width) as `image_size`, and what `decode_image` would put right.

    Pixels are decoded only of a JPEG that breaks off.

    Raises:
        DataError: it is no image, or breaks off too early.
    """
    with _opened(path) as image:
        size = _upright_size(image)
        breaks_off = image.format in _JPEGS and not has_end(path)
    return size, decode_image(path).repaired if breaks_off else ""


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
def _opened(path: str | Path) -> Iterator[Image.Image | DeepTiff]:
    """An open, not yet decoded image; whatever goes wrong in the block becomes a DataError."""
    name = printable(path)  # a line break in it would split the message
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: {found}; expected an image file; correct the path") from error
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(f"{name}: {found}; expected an image file; correct the path")
    if status.st_size == 0:
        raise DataError(f"{name}: empty (0 bytes); expected an image; replace or remove it")
    try:
        image = _open(path)
        try:
            yield image
        finally:
            if isinstance(image, Image.Image):
                image.close()
    except (UnreadableError, Image.DecompressionBombError) as error:
        if isinstance(error, Image.DecompressionBombError):
            error = too_large(error)
        raise DataError(f"{name}: {printable(error)}; {error.advice}") from error
    except Exception as error:  # damaged or hostile bytes make the decoders raise anything
        raise DataError(
            f"{name}: cannot be decoded ({reason(error)}); expected a whole image of {NAMES};"
            " replace or remove it"
        ) from error


def _open(path: str | Path) -> Image.Image | DeepTiff:
    """The file with the decoder that reads it right.

    Raises:
        UnreadableError: none does.
    """
    try:
        image = Image.open(path, formats=list(readable_formats()))
    except UnidentifiedImageError:
        with open(path, "rb") as file:
            head = file.read(HEAD)
        if head.startswith(TIFF_MAGICS):
            return DeepTiff(path)
        raise unread_kind(head) from None
    if isinstance(image, TiffImageFile) and pillow_misreads(image.tag_v2):
        image.close()
        return DeepTiff(path)
    return image


def _upright_size(image: Image.Image | DeepTiff) -> Size:
    width, height = image.size
    if isinstance(image, TiffImageFile):  # some versions of Pillow give the turned size
        width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def _orientation(image: Image.Image | DeepTiff) -> int:
    """The EXIF orientation in the header, 1 (upright) where there is none."""
    if isinstance(image, DeepTiff):
        return image.orientation
    # The base class's: PNG's own decodes the picture to look for EXIF behind it.
    try:
        orientation: int = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return orientation
    except (SyntaxError, ValueError, struct.error):  # a damaged EXIF block of a good picture
        return 1


def _rgb(image: Image.Image | DeepTiff, path: str | Path) -> tuple[Image.Image, str]:
    """Decode as 8-bit RGB, as stored, and say what was put right."""
    if isinstance(image, DeepTiff):
        return image.rgb(), ""
    if is_deep_png(image):
        return read_deep_png(path), ""
    try:
        image.load()
    except OSError:
        found = complete_jpeg(Path(path).read_bytes()) if image.format in _JPEGS else None
        if found is None:
            raise
        whole, missing = found
        rows = f"its last {missing} rows" if missing else "its end marker"
        return whole.convert("RGB"), f"lacks {rows}"
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(eight_bits(np.asarray(image))).convert("RGB"), ""
    return image if image.mode == "RGB" else image.convert("RGB"), ""  # which copies in any case


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
        found = _matches(path)
    images = sorted(file for file in found if is_image_name(file.name) and file.is_file())
    if not images:
        raise DataError(f"{printable(path)}: {_no_images(path)}")
    return images


def is_image_name(name: str) -> bool:
    """Whether a file is called as images are and not hidden, as macOS's `._` files beside them."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def _matches(pattern: Path) -> list[Path]:
    """Paths that fit a pattern; brackets of folders that exist may be part of their names."""
    if found := glob.glob(str(pattern), recursive=True):
        return [Path(name) for name in found]
    folder = next(parent for parent in pattern.parents if parent.is_dir())
    rest = str(pattern.relative_to(folder))
    return [folder / name for name in glob.glob(rest, root_dir=folder, recursive=True)]


def _no_images(path: Path) -> str:
    """Why a folder or a pattern gives no images, and what to do."""
    if not path.is_dir():
        return "no images fit this pattern; * is anything, ** any folders, [ab] a or b; correct it"
    below = sum(is_image_name(file.name) for file in islice(path.rglob("*"), MOST_LOOKED_AT))
    if below:
        return f"no images in it, {below:,} in its folders; give '{printable(path / '**' / '*')}'"
    return f"no images in it; expected files named {' '.join(sorted(SUFFIXES))}; correct the path"
