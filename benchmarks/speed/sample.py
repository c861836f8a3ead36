"""One image file to a normalised padded tensor, on one thread, against skimage on floats."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from benchmarks.sides.measure import Function, Row, arguments, markdown, medians, show
from benchmarks.sides.plain_detection import read_sample
from retinanet.data.datasets import CSVDataset
from retinanet.data.images import read_image
from retinanet.data.transforms import (
    AUGMENTATIONS,
    Distorter,
    Normalizer,
    Resizer,
    evaluation_transform,
)

SIZE = (640, 480)  # width, height


def photograph(folder: Path) -> Path:
    """A photograph that comes with scikit-image, as a JPEG."""
    path = folder / "photograph.jpg"
    pixels = data.coffee()
    Image.fromarray(pixels).resize(SIZE).save(path, quality=90)
    return path


def stages(path: Path, side: int, longest: int) -> dict[str, Function]:
    """What our side does, each part on what the part before it gave; and the least it could do."""
    picture = Image.open(path)
    picture.load()
    pixels = torch.from_numpy(read_image(path))
    resizer, normalizer = Resizer(side, longest), Normalizer()
    boxes = torch.tensor([[10.0, 10, 200, 200, 0]]).repeat(8, 1)
    resized = resizer({"img": pixels, "annot": boxes})
    indices = itertools.count()

    def distorted(augment: str) -> Function:
        distort = Distorter(augment, 0, side, longest)
        return lambda: distort({"img": pixels, "annot": boxes, "index": next(indices), "epoch": 0})

    return {
        "Pillow decodes": lambda: Image.open(path).load(),
        "its pixels as an array": lambda: np.array(picture),
        "torch resizes": lambda: resizer({"img": pixels, "annot": boxes}),
        **{f"or --augment {name}": distorted(name) for name in AUGMENTATIONS[1:]},
        "normalised, as floats": lambda: normalizer(resized),
        "only writing that many floats": lambda: torch.ones(resized["img"].shape),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = arguments(__doc__, repeats=21).parse_args(argv)
    longest = round(args.side * 1024 / 608)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        path = photograph(Path(name))
        csv_file = path.with_suffix(".csv")
        csv_file.write_text(f"{path.name},10,10,200,200,cup\n")
        dataset = CSVDataset(csv_file, {"cup": 0}, evaluation_transform(args.side, longest))
        time = medians(
            {
                "ours": lambda: dataset[0],
                "plain": lambda: read_sample(path, args.side, longest),
            },
            args.repeats,
        )
        parts = medians(stages(path, args.side, longest), args.repeats)
        image, plain_image = dataset[0]["img"], read_sample(path, args.side, longest)["img"]
    what = f"one sample, {SIZE[0]} x {SIZE[1]} JPEG to {args.side} px: skimage on floats"
    show([Row(what, time["ours"], time["plain"], faster=18, unit="ms")])
    torch.set_num_threads(threads)
    difference = np.abs(image.numpy() - plain_image.numpy()).mean()
    print(markdown(("part", "ms"), [[name, f"{1e3 * part:.2f}"] for name, part in parts.items()]))
    print(f"\nmean difference of the two: {difference:.4f} standard deviations\n")


if __name__ == "__main__":
    main()
