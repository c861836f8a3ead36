"""CPU time and memory of detection, by the number of photographs and frames, their size and boxes.

Photographs, pictures and films go through visualize.py, streams through `retinanet.load`.
"""

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import visualize
from benchmarks.sides.measure import arguments, machine, markdown, process_memory
from retinanet.inference.detector import load
from retinanet.inference.film import FilmWriter
from retinanet.model import ModelConfig, RetinaNet
from retinanet.weights.checkpoint import Checkpoint, save_checkpoint

PHOTOGRAPH = 0.3  # megapixels
SMALL = 160, 120  # pixels of a frame, and of a photograph of a stream
CANDIDATES = 50  # a level, of these
FEW = 10  # boxes on a photograph
Case = tuple[str, int, list[str]]  # what grows, how large it is, flags of visualize.py


def save_model(path: Path, depth: int, side: int) -> None:
    """Write an untrained model of a narrow pyramid, whose scores are spread out."""
    torch.manual_seed(0)
    model = RetinaNet(ModelConfig(3, depth, channels=16, head_convs=1))
    torch.nn.init.normal_(model.classificationModel.output.weight, std=0.02)
    names, longer = ("a", "b", "c"), side * 4 // 3
    save_checkpoint(
        path, Checkpoint(model.config, model.state_dict(), names, min_side=side, max_side=longer)
    )


def save_photograph(path: Path, megapixels: float) -> str:
    """Write a JPEG of clouds, 4:3, and return its path."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(small).resize((height * 4 // 3, height)).save(path, quality=85)
    return str(path)


def save_film(path: Path, frames: int) -> str:
    """Write a film of one small photograph that moves to the right, and return its path."""
    clouds = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(clouds).resize(SMALL))
    with FilmWriter(path, Fraction(25)) as film:
        for k in range(frames):
            film.add(np.roll(pixels, k, axis=1), k / 25)
    return str(path)


def boxes_flags(count: int, candidates: int = 5000) -> list[str]:
    """Flags by which an image has so many detections, of so many candidates a level."""
    most = ["--max_detections", str(count), "--candidates_per_level", str(candidates)]
    return [*most, "--score_threshold", "0.0001", "--nms_threshold", "0.95"]


def run(flags: Sequence[str]) -> tuple[float, int, int]:
    """CPU-seconds and peak bytes of a process that ran visualize.py, and boxes that it told."""
    said, wrong = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(wrong):
        code = visualize.main(flags)
    if code:
        raise RuntimeError(f"visualize.py {' '.join(flags)}: {wrong.getvalue()}")
    told = sum(line.endswith(")") and ".jpg: " in line for line in said.getvalue().splitlines())
    told += sum(path.read_text().count('"label"') for path in Path(flags[2]).glob("*.jsonl"))
    return time.process_time(), process_memory("VmHWM"), told


def run_stream(model: str, photograph: str, count: int) -> tuple[float, int, int]:
    """The same of a process that detected in so many photographs from Python."""
    detector = load(
        model,
        score_threshold=0.0001,
        nms_threshold=0.95,
        candidates_per_level=CANDIDATES,
        max_detections=FEW,
    )
    found = detector.stream(repeat(photograph, count))
    told = sum(len(result) for _, result in found)
    return time.process_time(), process_memory("VmHWM"), told


def cases(
    folder: Path,
    photographs: Sequence[int],
    megapixels: Sequence[int],
    boxes: Sequence[int],
    frames: Sequence[int],
) -> Iterator[Case]:
    """What is measured; the images are made as it comes."""
    one = save_photograph(folder / "one.jpg", PHOTOGRAPH)
    for count in photographs:
        many = folder / f"photographs{count}"
        many.mkdir()
        for k in range(count):
            os.link(one, many / f"{k}.jpg")
        yield "photographs", count, [str(many), *boxes_flags(FEW)]
    for tiles in ([], ["--tile", "512"]):
        for size in megapixels:
            large = save_photograph(folder / f"{size}.jpg", size)
            what = "megapixels of a picture" + (", in tiles of 512 px" if tiles else "")
            yield what, size, [large, *boxes_flags(FEW), *tiles]
    for count in boxes:
        yield "boxes of a photograph", count, [one, *boxes_flags(count)]
    for count in frames:
        film = save_film(folder / f"{count}.mp4", count)
        yield "frames of a film", count, [film, *boxes_flags(FEW, CANDIDATES)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print; `--repeats` is unused."""
    parser = arguments(__doc__, repeats=1)
    parser.set_defaults(side=128, depth=18)
    for name, sizes in (
        ("photographs", (1, 10, 100, 1000)),
        ("megapixels", (1, 10, 50, 100)),
        ("boxes", (1, 10, 100, 1000)),
        ("frames", (100, 1000, 10_000)),
        ("stream", (100, 1000, 10_000)),
    ):
        parser.add_argument(f"--{name}", nargs="*", type=int, default=sizes, metavar="N")
    args = parser.parse_args(argv)
    print(markdown(("what grows", "to", "boxes drawn", "CPU-seconds", "peak MB"), []), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.pt"
        save_model(model, args.depth, args.side)
        sizes = (args.photographs, args.megapixels, args.boxes, args.frames)
        for number, (what, size, flags) in enumerate(cases(folder, *sizes)):
            own = [str(model), "--output_dir", str(folder / f"out{number}")]
            measure(what, size, run, [*own, "--images", *flags])
        small = save_photograph(folder / "small.jpg", SMALL[0] * SMALL[1] / 1e6)
        for size in args.stream:
            measure("photographs of a stream", size, run_stream, str(model), small, size)
    print(f"\nResNet-{args.depth}, 16 channels, {args.side} px, on {machine()}\n", flush=True)


def measure(
    what: str, size: int, work: Callable[..., tuple[float, int, int]], *args: object
) -> None:
    """Print the row of work that is done in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seconds, memory, told = process.submit(work, *args).result()
    cells = (what, f"{size:,}", f"{told:,}", f"{seconds:.2f}", f"{memory / 1e6:.0f}")
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
