"""Films, frame by frame, through PyAV (`pip install av`), which brings FFmpeg along."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import DataError, printable

SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
# Only containers that hold their own pictures: a playlist could name other files and addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,mpeg,mpegts"
CLOCK = 90_000  # ticks a second of the times that are written
MISSING = "films need PyAV: pip install -r requirements-video.txt"


class Frame(NamedTuple):
    """One picture of a film."""

    number: int
    """From 0, of all frames, also of those that are passed over."""
    time: float
    """Seconds from the beginning."""
    pixels: NDArray[np.uint8]
    """[H, W, 3] RGB, upright."""


class Film:
    """The frames of a file, read as they are wanted.

    Args:
        path: of the film.
        every: only the frames 0, N, 2 N ... are given.

    Raises:
        DataError: the file is no film, or PyAV is missing.
    """

    def __init__(self, path: str | Path, every: int = 1) -> None:
        self.path, self.every = Path(path), every
        self.damage = ""  # what was wrong with the parts that could not be read
        with self._opened() as stream:
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            """Frames a second, of the file."""
            seconds = stream.duration and float(stream.duration * stream.time_base)
            self.total = -(-round(seconds * self.rate) // every) if seconds else stream.frames
            """Frames that will come, as the header has it; 0 where it does not say."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order; a part that cannot be decoded is passed over and noted."""
        import av

        number = 0
        with self._opened() as stream:
            stream.thread_type = "AUTO"
            packets = stream.container.demux(stream)
            while True:
                try:
                    frames = next(packets).decode()
                except StopIteration:
                    return
                except av.error.FFmpegError as error:
                    self.damage = f"after frame {number}: {error.strerror}"
                    if isinstance(error, av.error.EOFError):
                        return
                    continue
                for frame in frames:
                    if number % self.every == 0:
                        time = float(number / self.rate) if frame.time is None else frame.time
                        yield Frame(number, time, _upright(frame))
                    number += 1

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The stream of pictures; the file is read by us, so that it can name no other."""
        try:
            import av
        except ImportError as error:
            raise DataError(f"{printable(self.path)}: {MISSING}") from error
        try:
            with self.path.open("rb") as file:
                with av.open(file, options={"format_whitelist": CONTAINERS}) as container:
                    if not container.streams.video:
                        raise DataError(
                            f"{printable(self.path)}: no pictures in it; expected a film"
                        )
                    yield container.streams.video[0]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{printable(self.path)}: {printable(reason)}; expected a film"
                f" ({', '.join(sorted(SUFFIXES))})"
            ) from error


def _upright(frame: Any) -> NDArray[np.uint8]:
    """[H, W, 3] RGB of a frame, turned as its phone was held."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))


class FilmWriter:
    """Pictures to an MP4 file, one by one; the file has its name when it is whole.

    Args:
        path: of the film; nothing must be there.
        rate: pictures a second, about; each has a time of its own.

    Raises:
        DataError: PyAV is missing, or the file cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self._temporary = path.with_name(f".{path.name}.part")
        self._container: Any = None
        self._stream: Any = None
        self._last = -1  # ticks

    def __enter__(self) -> "FilmWriter":
        try:
            import av
        except ImportError as error:
            raise DataError(f"{printable(self.path)}: {MISSING}") from error
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._temporary), "w", format="mp4")
        except OSError as error:
            raise DataError(
                f"{printable(self.path)}: {error.strerror}; expected a place"
            ) from error
        return self

    def add(self, pixels: NDArray[np.uint8], time: float) -> None:
        """Add a picture [H, W, 3] RGB, of the size of the first one, at a time in seconds."""
        import av

        height, width = (side - side % 2 for side in pixels.shape[:2])  # what its colours need
        if self._stream is None:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._stream = self._container.add_stream(codec, rate=self.rate)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, CLOCK)
        elif (self._stream.height, self._stream.width) != (height, width):
            raise DataError(
                f"{printable(self.path)}: a frame of {width} x {height} pixels; expected"
                f" {self._stream.width} x {self._stream.height} as the first; give one size"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]))
        self._last = max(self._last + 1, round(time * CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, *error: object) -> None:
        """Finish the file; what was added before an error is kept too."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._stream is None:
            self._temporary.unlink(missing_ok=True)  # made with the first picture
        else:
            os.replace(self._temporary, self.path)
