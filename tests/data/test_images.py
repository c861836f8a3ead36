"""The decoder on every colour mode, orientation and hostile file; the arithmetic of sizes."""

import contextlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinanet.data.images import image_size, is_sideways, padded_size, read_image, resized_size
from retinanet.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(folder: Path, image: Image.Image, name: str = "picture.png", **options: object) -> Path:
    path = folder / name
    image.save(path, **options)
    return path


def filled(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (3, 2), colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (filled("RGB", RED), "a.png", RED),
        (filled("L", 128), "a.png", (128, 128, 128)),
        (filled("1", 1), "a.png", (255, 255, 255)),  # bool: 0 or 255, not 0 or 1
        (filled("LA", (200, 7)), "a.png", (200, 200, 200)),  # alpha dropped, not composited
        (filled("RGBA", (*RED, 0)), "a.png", RED),
        (filled("P", 0), "a.gif", (0, 0, 0)),
        (filled("CMYK", (0, 255, 255, 0)), "a.tif", RED),
        # 16 bits: 65535 is white, 257 * 100 is 100
        (Image.fromarray(np.full((2, 3), 65535, np.uint16)), "a.png", (255, 255, 255)),
        (Image.fromarray(np.full((2, 3), 25700, np.uint16)), "a.tif", (100, 100, 100)),
        (Image.fromarray(np.full((2, 3), 25700, np.int32)), "a.tif", (100, 100, 100)),
        # floats of 0..1, or of 0..255
        (Image.fromarray(np.full((2, 3), 0.5, np.float32)), "a.tif", (128, 128, 128)),
        (Image.fromarray(np.array([[9, 200], [9, 9]], np.float32)), "a.tif", (9, 9, 9)),
    ],
)
def test_every_colour_mode_becomes_rgb(
    tmp_path: Path, image: Image.Image, name: str, expected: tuple[int, int, int]
) -> None:
    path = saved(tmp_path, image, name)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (image.height, image.width, 3)
    assert tuple(pixels[0, 0]) == expected
    assert image_size(path) == (image.height, image.width)


def test_a_tiff_of_luma_and_chroma_becomes_rgb(tmp_path: Path) -> None:
    image = filled("YCbCr", (76, 85, 255))  # uncompressed, Pillow before 13 cannot read it back
    path = saved(tmp_path, image, "a.tif", compression="tiff_lzw")
    assert read_image(path)[0, 0].tolist() == [254, 0, 0]


def test_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    pixels = read_image(saved(tmp_path, image, transparency=b"\x00\x80"))
    assert pixels.tolist() == [[list(RED), list(BLUE)]]


def test_first_frame_of_an_animation_under_a_wrong_name(tmp_path: Path) -> None:
    frames = [filled("RGB", RED), filled("RGB", BLUE)]
    path = tmp_path / "animation.jpg"
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])
    assert tuple(read_image(path)[0, 0]) == RED


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, Image.fromarray(stored), f"a.{suffix}", exif=exif, **options)
    upright = {  # EXIF's definition: where row 0 and column 0 of the stored picture belong
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    np.testing.assert_array_equal(read_image(path), upright)
    assert image_size(path) == upright.shape[:2]
    assert is_sideways(path) == (orientation >= 5)


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_damaged_exif_leaves_a_good_picture_upright(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, filled("RGB", RED), f"a.{suffix}", exif=b"MM\x00")
    assert image_size(path) == (2, 3)
    assert read_image(path).shape == (2, 3, 3)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad.jpg: empty .0 bytes.; expected an image; replace or remove it"),
        (b"<!doctype html>", "bad.jpg: not an image .it starts with b'<!doctype ht'.; expected"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),  # Pillow would start Ghostscript
        (
            png_header(60_000, 60_000),
            "bad.jpg: 3,600 megapixels, more than the 179 that",
        ),
    ],
)
def test_files_that_are_no_image(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_truncated_jpeg(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), "cut.jpg")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded \(.*truncated"):
        read_image(path)
    assert image_size(path) == (64, 64)  # the header is whole, and no more is read


def test_header_alone_gives_the_size(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(9000, 8000))
    assert image_size(path) == (8000, 9000)


def test_grey_values_without_an_agreed_range(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.full((2, 2), 70_000, np.int32)), "a.tif")
    with pytest.raises(DataError, match="pixel values 70000 to 70000, expected 0 to 65535"):
        read_image(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, message in [
        ("folder.jpg", r"folder\.jpg: a folder; expected an image file"),
        ("pipe.jpg", r"pipe\.jpg: not a regular file; expected an image file"),
        ("none.jpg", r"none\.jpg: No such file or directory; expected an image file"),
        ("a\0b.jpg", "embedded null (byte|character)"),
        ("x" * 300, "File name too long"),
        ("two\nlines.jpg", r"two\\nlines\.jpg: No such file"),
    ]:
        for read in (read_image, image_size):
            with pytest.raises(DataError, match=message):
                read(tmp_path / name)


def test_extreme_shapes(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path, Image.new("RGB", (1, 1), RED))).tolist() == [[list(RED)]]
    wide = saved(tmp_path, Image.new("L", (30_000, 2)), "wide.png")
    assert read_image(wide).shape == (2, 30_000, 3)


def test_pillow_stays_silent(tmp_path: Path) -> None:
    # 100 megapixels: Pillow warns of a bomb. In a process of its own, for pytest collects warnings.
    path = tmp_path / "large.png"
    path.write_bytes(png_header(10_000, 10_000))
    code = f"from retinanet.data.images import image_size; image_size({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout + done.stderr == ""


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"BM"])
)
def test_any_bytes_give_an_image_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    path.write_bytes(head + content)
    for read in (image_size, read_image):
        with contextlib.suppress(DataError):
            assert read(path) is not None


@pytest.mark.parametrize(
    ("size", "expected", "scale"),
    [
        ((480, 640), (608, 811), 608 / 480),  # 640 * 1.2667 = 810.67
        ((608, 800), (608, 800), 1.0),
        ((300, 1000), (307, 1024), 1.024),  # the larger side decides: 300 * 1.024 = 307.2
        ((1000, 300), (1024, 307), 1.024),
        ((2, 30_000), (1, 1024), 1024 / 30_000),  # at least one pixel
        ((1, 1), (608, 608), 608.0),
    ],
)
def test_resized_size(size: tuple[int, int], expected: tuple[int, int], scale: float) -> None:
    assert resized_size(*size, 608, 1024) == (expected, pytest.approx(scale))


def test_padding_only_where_needed() -> None:
    assert padded_size(608, 811) == (608, 832)
    assert padded_size(1, 32) == (32, 32)
    assert padded_size(5, 6, multiple=4) == (8, 8)
