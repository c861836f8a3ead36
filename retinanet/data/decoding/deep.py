"""Pixels of more than 8 bits a channel, and of TIFFs that Pillow misreads, brought to 8 bits."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from retinanet.data.decoding.formats import UnreadableError, check_area

DEPTHS = (8, 10, 12, 14)
"""Bits that cameras fill of numbers of 16."""

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PHOTOMETRIC, _BANDS, _SUBFILE = 258, 262, 277, 254  # tags of a TIFF
_WHITE_IS_0, _BLACK_IS_0, _RGB, _CMYK = 0, 1, 2, 5  # photometric interpretations,
_BANDS_OF = {_WHITE_IS_0: (1, 2), _BLACK_IS_0: (1, 4), _RGB: (3, 99), _CMYK: (4, 99)}  # and bands
_PLANAR = 2  # one band after the other
_PREVIEW = 1  # a bit of the subfile type: a reduced version of another picture in the file


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale values of any type to 0..255, so that black stays black and white stays white.

    Whole numbers have the least of `DEPTHS` that holds the greatest of them, or else 16 bits (15 if
    signed). Floats are of 0..1, or of 0..255 where one is above 1.

    Raises:
        UnreadableError: they are of no such range.
    """
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.floating):
        top = 255 if high > 1 else 1
    else:
        most = min(65535, np.iinfo(values.dtype).max)
        top = next((2**bits - 1 for bits in DEPTHS if high < 2**bits), most)
    if not 0 <= low <= high <= top:
        raise UnreadableError(
            f"pixel values {low:g} to {high:g}, expected 0 to {top}", "save it with 8 bits"
        )
    scaled: NDArray[np.uint8] = (values.astype(np.float32) * (255 / top) + 0.5).astype(np.uint8)
    return scaled


# How Pillow unpacks a PNG of 16 bits a channel, of which it keeps the upper bytes: how it would
# unpack the upper and the lower bytes. Two bytes in the other order, and grey and alpha as RGBA.
_DEEP_PNGS = {
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
    "LA;16B": ("RGBA",),
}


def is_deep_png(image: Image.Image) -> bool:
    """Whether a PNG has several channels of 16 bits."""
    return image.format == "PNG" and _raw_mode(image) in _DEEP_PNGS


def read_deep_png(path: str | Path) -> Image.Image:
    """Decode a PNG of several channels of 16 bits; alpha is dropped."""
    with Image.open(path, formats=["PNG"]) as image:
        modes = _DEEP_PNGS[_raw_mode(image)]
    parts = []
    for mode in modes:
        with Image.open(path, formats=["PNG"]) as image:
            image.tile = [(*image.tile[0][:3], mode)]  # type: ignore[list-item]
            parts.append(np.asarray(image).astype(np.uint16))
    if len(modes) == 1:
        parts = [parts[0][..., :1], parts[0][..., 1:2]]
    return as_rgb(eight_bits(256 * parts[0] + parts[1]))


def _raw_mode(image: Image.Image) -> str:
    """Raw mode in which Pillow will unpack the pixels of an open file."""
    return str(image.tile[0][3])  # type: ignore[attr-defined]


def as_rgb(pixels: NDArray[np.uint8]) -> Image.Image:
    """RGB of [H, W, bands]: one band or two are grey and alpha, more begin with RGB."""
    bands = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1].repeat(3, axis=2)
    return Image.fromarray(np.ascontiguousarray(bands))


def pillow_misreads(tags: Any) -> bool:
    """Whether a TIFF is better not left to Pillow, by its tags.

    Pillow makes noise of planar colours of 16 bits, negatives of 16 bits where 0 is white, nearly
    black pictures of 12 bits in 16, and grey ones of the first of several bands.
    """
    grey = tags.get(_PHOTOMETRIC) in (_WHITE_IS_0, _BLACK_IS_0)
    preview = int(tags.get(_SUBFILE, 0)) & _PREVIEW
    return bool(np.max(tags.get(_BITS, 1)) > 8 or (grey and tags.get(_BANDS, 1) > 2) or preview)


class DeepTiff:
    """The first picture of a TIFF, read by tifffile.

    Args:
        path: of the file.

    Raises:
        UnreadableError: it is of a kind that is not read.
    """

    format = "TIFF"

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            self.size = int(page.imagewidth), int(page.imagelength)
            self.bands, self.photometric = int(page.samplesperpixel), int(page.photometric)
            self.compression = int(page.compression)
            self.orientation = int(page.tags.valueof("Orientation", 1))
            preview = int(page.tags.valueof(_SUBFILE, 0)) & _PREVIEW
        check_area(*self.size)
        if preview:
            raise UnreadableError(
                "a TIFF that begins with a preview, as a camera's raw files do",
                "develop it to JPEG or PNG",
            )
        least, most = _BANDS_OF.get(self.photometric, (1, 0))
        if not least <= self.bands <= most:
            colours = _name(tifffile.PHOTOMETRIC, self.photometric)
            raise UnreadableError(
                f"a TIFF of {self.bands} bands (colours: {colours}); expected 1 to 4: grey or RGB,"
                " perhaps with alpha",
                "save the three bands that show it as an RGB picture",
            )

    def rgb(self) -> Image.Image:
        """Decode it as it is stored, not turned upright.

        Raises:
            UnreadableError: its values are of no known range, or it is compressed in an odd way.
        """
        pixels = eight_bits(self._values())
        if self.photometric == _WHITE_IS_0:
            pixels = 255 - pixels
        if self.photometric == _CMYK:
            return Image.fromarray(np.ascontiguousarray(pixels[..., :4]), "CMYK").convert("RGB")
        return as_rgb(pixels)

    def _values(self) -> NDArray[Any]:
        """[H, W, bands] as stored."""
        width, height = self.size
        try:
            with tifffile.TiffFile(self.path) as file:
                page: Any = file.pages[0]
                values, planar = page.asarray(), int(page.planarconfig) == _PLANAR
        except ValueError as error:
            if "imagecodecs" not in str(error):  # which tifffile needs for LZW and other ways
                raise
            return self._values_by_pillow()
        if planar and self.bands > 1:
            return np.moveaxis(values.reshape(self.bands, height, width), 0, 2)
        return values.reshape(height, width, self.bands)

    def _values_by_pillow(self) -> NDArray[Any]:
        """Values of the kinds that Pillow's libtiff reads right: RGB, grey of 16 bits, floats."""
        with suppress(UnidentifiedImageError), Image.open(self.path, formats=["TIFF"]) as image:
            swapped = image.tag_v2.prefix == b"MM"  # type: ignore[attr-defined]
            grey = image.mode.startswith("I;16") or (image.mode == "F" and not swapped)
            rgb = image.mode in ("RGB", "RGBA") and self.photometric == _RGB
            if rgb or (grey and self.bands == 1):
                return np.asarray(image).reshape(image.height, image.width, -1)
        raise UnreadableError(
            f"a TIFF compressed by {_name(tifffile.COMPRESSION, self.compression)}",
            "save it without compression, or pip install imagecodecs",
        )


def _name(kinds: Any, number: int) -> str:
    """The name of one of tifffile's numbers."""
    try:
        return str(kinds(number).name)
    except ValueError:
        return str(number)
