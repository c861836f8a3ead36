"""Formats: one table, the odd kinds read right, the others named; JPEGs that break off."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFile

from retinanet.data.decoding.deep import eight_bits
from retinanet.data.decoding.formats import FORMATS, SUFFIXES, UnreadableError, readable_formats
from retinanet.data.images import decode_image, image_files, image_size, inspect_image, read_image
from retinanet.errors import DataError
from tests.support.paths import ROOT

HEIGHT, WIDTH = 48, 64


def gradients(bands: int = 3) -> NDArray[np.float64]:
    """[H, W, bands] of 0.1 to 0.9: no band is like another."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    return 0.1 + 0.8 * np.stack([x, y, (x + y) / 2, 1 - x, 1 - y], axis=2)[..., :bands]


def photo() -> Image.Image:
    """A picture of noise over gradients, 96 x 160: every row of blocks has many bytes."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (160, 96, 3), dtype=np.uint8))


# ---- the table ----


def test_the_documented_table_is_the_decoder_s() -> None:
    text = (ROOT / "docs/images.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ((?:\.\w+ ?)+) \|", text, flags=re.MULTILINE)
    assert [(name, tuple(endings.split())) for name, endings in rows] == [tuple(f) for f in FORMATS]


def test_every_ending_is_found_in_a_folder_whatever_its_case(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix.upper()}").write_bytes(b"x")
    for other in ("notes.txt", "._a.jpg", "a.jpg.part"):  # macOS keeps ._a.jpg beside a.jpg
        (tmp_path / other).write_bytes(b"x")
    assert {path.suffix.lower() for path in image_files(tmp_path)} == SUFFIXES
    assert len(image_files(tmp_path)) == len(SUFFIXES)


@pytest.mark.parametrize("name", [image_format.name for image_format in FORMATS])
def test_every_format_of_the_table_is_read(tmp_path: Path, name: str) -> None:
    if name not in readable_formats():
        pytest.skip(f"this Pillow does not read {name}")
    pixels = (gradients() * 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    path = tmp_path / "picture.dat"  # the content decides
    (image.quantize() if name == "GIF" else image).save(path, format=name)
    assert image_size(path) == (HEIGHT, WIDTH)
    assert np.abs(read_image(path).astype(int) - pixels).mean() < 12  # GIF has 256 colours


def test_two_pictures_in_one_jpeg_as_cameras_write_them(tmp_path: Path) -> None:
    path = tmp_path / "a.mpo"
    first, second = Image.new("RGB", (WIDTH, HEIGHT), "red"), Image.new("RGB", (WIDTH, HEIGHT))
    first.save(path, format="MPO", save_all=True, append_images=[second])
    assert read_image(path)[0, 0].tolist() == [254, 0, 0]


# ---- what is not read is named ----


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read; convert it to JPEG or"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC, which is not read; convert it"),
        (b"\0\0\0\x1cftypisom\0\0\2\0isomiso2", "a film, not an image; take pictures out of it"),
        (b"\xff\x0a\xfa\x1f\x41\x91", "JPEG XL, which is not read; convert it"),
        (b"8BPS\0\1", "a Photoshop document, which is not read; convert it"),
        (b"%PDF-1.7\n", "a PDF, not an image; convert it"),
        (b"\0" * 128 + b"DICM", "DICOM, which is not read; convert it"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a file that macOS keeps beside an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not yet the image"),
        (
            b"<svg xmlns=",
            "not an image .it starts with b'<svg xmlns='.; expected a whole JPEG, PNG",
        ),
    ],
)
def test_other_files_are_called_by_their_names(tmp_path: Path, head: bytes, message: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(head)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=rf"a\.jpg: {message}"):
            read(path)


def test_a_picture_of_190_megapixels_is_called_large(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.float32), photometric="rgb")
    with tifffile.TiffFile(path) as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    content = bytearray(path.read_bytes())
    for place, side in zip(places, (20_000, 9_500), strict=True):
        content[place : place + 2] = struct.pack("<H", side)
    path.write_bytes(content)
    message = "190 megapixels, more than the 179 that are read; cut it into tiles"
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=message):
            read(path)


def test_control_characters_of_a_decoder_s_message_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    photo().save(path)

    def load(image: Image.Image) -> None:
        raise OSError("bad chunk \x1b[2J\x07")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(DataError, match=r"bad chunk \\x1b\[2J\\x07"):
        read_image(path)


# ---- TIFF, and more than 8 bits ----


@pytest.mark.parametrize(
    ("dtype", "top"),
    [("u1", 255), ("u2", 65535), ("u2", 4095), ("f4", 1), ("f8", 255), ("i2", 32767)],
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("bands", "photometric"),
    [(1, "minisblack"), (1, "miniswhite"), (3, "rgb"), (3, "minisblack"), (4, "rgb"), (5, "rgb")],
)
def test_tiffs_of_any_depth_and_order(
    tmp_path: Path, dtype: str, top: int, planar: str, byteorder: str, bands: int, photometric: str
) -> None:
    truth = gradients(bands)
    values = (truth * top).astype(dtype)
    stored = values.transpose(2, 0, 1) if planar == "separate" else values
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        stored if bands > 1 else values[..., 0],
        photometric=photometric,
        planarconfig=planar if bands > 1 else None,
        byteorder=byteorder,
        metadata=None,
    )
    expected = 1 - truth if photometric == "miniswhite" else truth
    expected = expected[..., :3] if bands > 1 else expected.repeat(3, axis=2)
    assert image_size(path) == (HEIGHT, WIDTH)
    np.testing.assert_allclose(read_image(path) / 255, expected, atol=1.1 / 255)


def test_a_turned_deep_tiff_is_upright(tmp_path: Path) -> None:
    values = (gradients() * 65535).astype(np.uint16)
    path = tmp_path / "a.tif"
    turned = [(274, "H", 1, 6, False)]  # to be turned by a quarter
    tifffile.imwrite(path, values, photometric="rgb", metadata=None, extratags=turned)
    assert image_size(path) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(read_image(path), np.rot90(eight_bits(values), -1))


def test_what_a_tiff_lacks_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    bands = np.zeros((8, 9, 5), np.uint8)
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig", metadata=None)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"a TIFF of 5 bands .*; expected 1 to 4: grey or RGB"):
            read(path)
    tifffile.imwrite(path, np.zeros((8, 9, 3), np.uint8), photometric="rgb", subfiletype=1)
    with pytest.raises(DataError, match="begins with a preview, as a camera's raw files do; dev"):
        read_image(path)


def test_grey_lzw_needs_no_other_package(tmp_path: Path) -> None:
    values = (gradients(1)[..., 0] * 65535).astype(np.uint16)
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(path)[..., 0], eight_bits(values))


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (6, 4), (4, 2)])
@pytest.mark.parametrize("top", [65535, 4095])
def test_pngs_of_16_bits(tmp_path: Path, colour: int, bands: int, top: int) -> None:
    truth = gradients(bands)
    values = (truth * top).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    expected = truth[..., :3] if bands > 2 else truth[..., :1].repeat(3, axis=2)
    np.testing.assert_allclose(read_image(path) / 255, expected, atol=1.1 / 255)


@pytest.mark.parametrize(
    ("brightest", "white"), [(200, 255), (256, 1023), (4000, 4095), (9000, 16383), (20_000, 65535)]
)
def test_depth_follows_the_brightest_pixel(brightest: int, white: int) -> None:
    values = np.array([[0, brightest]], np.uint16)
    assert eight_bits(values).tolist() == [[0, int(brightest * 255 / white + 0.5)]]


def test_values_of_no_known_range_are_an_error() -> None:
    for values in ([-1.0, 0.5], [0.0, 300.0], [float("nan"), 1.0]):
        with pytest.raises(UnreadableError, match=r"pixel values .*, expected 0 to"):
            eight_bits(np.array([values]))


# ---- JPEGs that break off ----


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    photo().save(stream, format="JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_a_jpeg_without_its_end_is_read_and_what_is_missing_is_said(
    tmp_path: Path, options: dict[str, object]
) -> None:
    whole = jpeg(**options)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    truth = read_image(path)
    for cut in (1, 2, 3, 6, 21, 100, 300):
        path.write_bytes(whole[:-cut])
        pixels, repaired = decode_image(path)
        missing = re.fullmatch(r"lacks its (end marker|last (\d+) rows)", repaired)
        rows = int(missing[2] or 0)
        assert rows <= 24
        np.testing.assert_array_equal(pixels[: 160 - rows], truth[: 160 - rows])
        assert (cut > 2) == (rows > 0) or cut < 21  # the last bits of the last block may be zeros
        assert inspect_image(path) == ((160, 96), repaired)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_jpeg_that_lacks_more_is_an_error(
    tmp_path: Path, options: dict[str, object], share: float
) -> None:
    whole = jpeg(**options)
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[: int(len(whole) * share)])
    for read in (read_image, inspect_image):
        with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded .*truncated"):
            read(path)


def test_a_progressive_jpeg_without_its_last_scans_is_coarse_and_an_error(tmp_path: Path) -> None:
    whole = jpeg(progressive=True)
    last_scan = whole.rindex(b"\xff\xda")
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:last_scan])  # all rows are there, the last bit of each coefficient not
    with pytest.raises(DataError, match="cannot be decoded"):
        read_image(path)


def test_what_an_app_appended_is_no_broken_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for tail in (b"", b"\0" * 100, b"ftypmp42 a film of two seconds"):
        path.write_bytes(jpeg() + tail)
        assert inspect_image(path) == ((160, 96), decode_image(path).repaired) == ((160, 96), "")


# ---- which files a path names ----


def test_brackets_of_a_folder_s_name_are_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "trip [2024]"
    folder.mkdir()
    photo().save(folder / "a.jpg")
    assert image_files(folder / "*.jpg") == [folder / "a.jpg"]
    assert image_files(folder / "a.jpg") == [folder / "a.jpg"]
    photo().save(tmp_path / "b.jpg")
    assert image_files(tmp_path / "[ab].jpg") == [tmp_path / "b.jpg"]


def test_a_folder_of_folders_says_how_to_name_them(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        photo().save(tmp_path / name / "a.jpg")
    with pytest.raises(DataError, match=r"no images in it, 2 in its folders; give '(.*)'") as error:
        image_files(tmp_path)
    pattern = str(error.value).rpartition("give '")[2].rstrip("'")
    assert len(image_files(pattern)) == 2
    empty = tmp_path / "z"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no images in it; expected files named \.apng \.avif"):
        image_files(empty)
    with pytest.raises(DataError, match="no images fit this pattern"):
        image_files(tmp_path / "*.xyz")
