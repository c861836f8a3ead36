"""Films: frames as they were written, damage passed over, nothing half-written."""

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retinanet.errors import DataError
from retinanet.inference.film import Film, FilmWriter

av = pytest.importorskip("av", reason="PyAV is not installed")

RATE = Fraction(10)


def grey(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A picture whose brightness tells its number."""
    return np.full((height, width, 3), 20 * number % 240, np.uint8)


def write(path: Path, count: int = 10, height: int = 48, width: int = 64) -> Path:
    """A film of a frame each tenth of a second."""
    with FilmWriter(path, RATE) as film:
        for number in range(count):
            film.add(grey(number, height, width), number / 10)
    return path


def write_noise(path: Path, count: int) -> Path:
    """The same of pictures that no compression makes small: most of the file are frames."""
    rng = np.random.default_rng(0)
    with FilmWriter(path, RATE) as film:
        for number in range(count):
            film.add(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), number / 10)
    return path


def test_frames_come_back_in_order_with_their_times(tmp_path: Path) -> None:
    film = Film(write(tmp_path / "a.mp4"))
    frames = list(film)
    assert film.total == 10
    assert [frame.number for frame in frames] == list(range(10))
    assert [round(frame.time, 3) for frame in frames] == [k / 10 for k in range(10)]
    for frame in frames:
        assert frame.pixels.shape == (48, 64, 3)
        assert abs(frame.pixels.mean() - 20 * frame.number) < 4  # colours are compressed
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_every_third_frame(tmp_path: Path) -> None:
    film = Film(write(tmp_path / "a.mp4"), every=3)
    assert [frame.number for frame in film] == [0, 3, 6, 9]
    assert film.total == 4


def test_an_odd_side_loses_a_row(tmp_path: Path) -> None:
    frames = list(Film(write(tmp_path / "a.mp4", 2, height=49, width=65)))
    assert frames[0].pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_film_that_breaks_off_gives_what_can_be_read(tmp_path: Path, share: float) -> None:
    whole = write_noise(tmp_path / "a.mp4", 40)
    # The index of an MP4 is at its end: copy the pictures to a container that has none.
    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: int(share * len(content))])
    count = len(list(Film(tmp_path / "cut.mkv")))
    assert 0 < count < 40


def test_damage_inside_is_passed_over_and_noted(tmp_path: Path) -> None:
    content = bytearray(write_noise(tmp_path / "a.mp4", 30).read_bytes())
    middle = content.index(b"mdat") + 2000
    content[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    (tmp_path / "a.mp4").write_bytes(content)
    damaged = Film(tmp_path / "a.mp4")
    assert len(list(damaged)) > 5  # whatever the decoder makes of it: no error, and an end


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.mp4", b"", "expected a film"),
        ("a.mp4", b"\x00" * 4000, "expected a film"),
        (
            "a.mp4",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n",
            "expected a film",
        ),
        ("a.avi", b"RIFF\xff\xff\xff\xffAVI LIST", "expected a film"),
    ],
)
def test_what_is_no_film_is_said(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        list(Film(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(DataError, match="No such file"):
        Film(tmp_path / "gone.mp4")


def test_frames_of_two_sizes_are_refused_and_the_first_ones_kept(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "a.mp4", RATE) as film:
        film.add(grey(1), 0)
        with pytest.raises(DataError, match="a frame of 32 x 32 pixels; expected 64 x 48"):
            film.add(grey(2, 32, 32), 0.1)
    assert len(list(Film(tmp_path / "a.mp4"))) == 1
    with pytest.raises(LookupError), FilmWriter(tmp_path / "b.mp4", RATE):
        raise LookupError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    film = Film(write(tmp_path / "a.mp4", 600))
    tracemalloc.start()
    for frame in film:
        if frame.number == 100:
            early = tracemalloc.get_traced_memory()[0]
    growth = tracemalloc.get_traced_memory()[0] - early
    tracemalloc.stop()
    assert growth < 5 * frame.pixels.nbytes
