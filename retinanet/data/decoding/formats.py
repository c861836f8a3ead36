"""The table of image formats that are read, and names for those that are not."""

from functools import lru_cache
from typing import NamedTuple

from PIL import Image


class ImageFormat(NamedTuple):
    """A format that is read."""

    name: str
    """Pillow's name of it."""
    suffixes: tuple[str, ...]
    """By these a folder's images are told from its other files; the content decides how to read."""


# Only these, whatever the file is called: Pillow would also start Ghostscript for an EPS.
FORMATS = (
    ImageFormat("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    ImageFormat("PNG", (".png", ".apng")),
    ImageFormat("TIFF", (".tif", ".tiff")),
    ImageFormat("WEBP", (".webp",)),
    ImageFormat("AVIF", (".avif",)),
    ImageFormat("JPEG2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")),
    ImageFormat("BMP", (".bmp", ".dib")),
    ImageFormat("GIF", (".gif",)),
    ImageFormat("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
)
NAMES = ", ".join(image_format.name for image_format in FORMATS)
SUFFIXES = frozenset(suffix for image_format in FORMATS for suffix in image_format.suffixes)

# First bytes of what else lies under the names of images: offset, bytes, name, what to do.
_CONVERT = "convert it to JPEG or PNG"
_UNREAD = (
    (4, b"ftypavif", "AVIF, which this version of Pillow does not read", "pip install -U pillow"),
    (4, b"ftypavis", "AVIF, which this version of Pillow does not read", "pip install -U pillow"),
    *(
        (4, b"ftyp" + brand, "HEIC, which is not read", _CONVERT)
        for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    ),
    (4, b"ftyp", "a film, not an image", "take pictures out of it"),
    (0, b"\xff\x0a", "JPEG XL, which is not read", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL, which is not read", _CONVERT),
    (0, b"\x76\x2f\x31\x01", "OpenEXR, which is not read", _CONVERT),
    (0, b"#?RADIANCE", "Radiance HDR, which is not read", _CONVERT),
    (0, b"8BPS", "a Photoshop document, which is not read", _CONVERT),
    (0, b"%PDF", "a PDF, not an image", _CONVERT),
    (0, b"\x89HDF", "HDF5, not an image", _CONVERT),
    (0, b"\x93NUMPY", "a numpy array, not an image", "save it as PNG"),
    (0, b"SIMPLE  =", "FITS, which is not read", _CONVERT),
    (128, b"DICM", "DICOM, which is not read", _CONVERT),
    (0, b"\0\x05\x16\x07", "a file that macOS keeps beside an image, not an image", "remove it"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not yet the image", "run git lfs pull"),
)
HEAD = 132  # bytes, enough for all of these


class UnreadableError(Exception):
    """Pixels that are not read for a reason that is known.

    Args:
        found: what the file is.
        advice: what would help.
    """

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


@lru_cache
def readable_formats() -> tuple[str, ...]:
    """Names of `FORMATS` that the installed Pillow knows."""
    Image.init()
    return tuple(known.name for known in FORMATS if known.name in Image.OPEN)


def unread_kind(head: bytes) -> UnreadableError:
    """Name of what a file is that no decoder takes, by its first `HEAD` bytes."""
    for offset, magic, name, advice in _UNREAD:
        if head[offset:].startswith(magic):
            return UnreadableError(name, advice)
    return UnreadableError(
        f"not an image (it starts with {head[:12]!r})",
        f"expected a whole {NAMES} image; replace or remove it",
    )


def check_area(width: int, height: int) -> None:
    """Refuse what Pillow calls a decompression bomb, for decoders that do not ask Pillow.

    Raises:
        DecompressionBombError: there are more pixels than Pillow reads.
    """
    if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"Image size ({width * height} pixels)")


def too_large(error: Image.DecompressionBombError) -> UnreadableError:
    """The refusal of a picture of which Pillow says that it may be a decompression bomb."""
    pixels = "".join(filter(str.isdigit, str(error).partition(" pixels")[0]))
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return UnreadableError(
        f"{int(pixels) / 1e6:,.0f} megapixels, more than the {most / 1e6:,.0f} that are read",
        "cut it into tiles of some 4000 x 4000 pixels, with its boxes",
    )
