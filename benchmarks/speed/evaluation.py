"""Evaluation of a data set as validate.py does it, against one image after another, plainly."""

import tempfile
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.sides.cases import let_pass
from benchmarks.sides.measure import Function, Row, arguments, markdown, medians, show
from benchmarks.sides.plain import PlainRetinaNet
from benchmarks.sides.plain_detection import detect, read_sample
from retinanet.data.datasets import CSVDataset
from retinanet.data.shapes import write_shapes
from retinanet.data.transforms import Sample, evaluation_transform
from retinanet.evaluation.coco import STATS, CocoScores, score_coco
from retinanet.inference.prediction import predict, to_original
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import DEFAULT_LIMITS, Detections
from retinanet.runtime.device import usable_workers
from retinanet.weights.checkpoint import load_checkpoint

CANDIDATES = 300  # over the threshold in the first image, for a network that was not trained


def flags(argv: Sequence[str] | None) -> Namespace:
    """The common flags, and what to evaluate on what."""
    parser = arguments(__doc__, repeats=3)
    parser.set_defaults(depth=18)
    parser.add_argument("--count", type=int, default=128, help="images (128)")
    parser.add_argument("--csv", help="real images: path,x1,y1,x2,y2,class (rendered shapes)")
    parser.add_argument("--classes", help="name,id of the CSV file's classes")
    parser.add_argument("--model", help="a saved .pt; without one the AP says nothing")
    args = parser.parse_args(argv)
    if bool(args.csv) != bool(args.classes):
        parser.error("--csv and --classes go together")
    return args


class First(CSVDataset):
    """The first images of a CSV file."""

    count = 0

    def __len__(self) -> int:
        return min(self.count, len(self._files))


def open_data(args: Namespace, folder: Path) -> First:
    """The images to evaluate on."""
    csv, classes = args.csv, args.classes
    if not csv:
        shapes = write_shapes(folder / "shapes", train_images=0, val_images=args.count)
        csv, classes = shapes.csv_val, shapes.csv_classes
    dataset = First(csv, classes, evaluation_transform(args.side, longest(args)))
    dataset.count = args.count
    return dataset


def longest(args: Namespace) -> int:
    """--max_side for this --side."""
    return round(args.side * 1024 / 608)


def open_model(args: Namespace, dataset: CSVDataset) -> RetinaNet:
    """The saved network, or a new one that finds a usual number of things."""
    if args.model:
        return load_checkpoint(args.model).build(torch.device("cpu"))
    torch.manual_seed(0)
    model = RetinaNet(ModelConfig(dataset.num_classes(), args.depth)).eval()
    model = model.to(memory_format=torch.channels_last)
    image = dataset[0]["img"][None].permute(0, 3, 1, 2)
    let_pass(model.classificationModel.output, lambda: model.head_outputs(image)[0], CANDIDATES)
    return model


def detect_plainly(model: PlainRetinaNet, samples: Iterable[Sample]) -> list[Detections]:
    """Sample after sample; of each image as many detections as ours keeps, so that AP is equal."""
    results = []
    for sample in samples:
        image = sample["img"].permute(2, 0, 1)[None].contiguous()
        found = to_original(detect(model, image, sample["size"]), sample)
        best = found.scores.argsort(descending=True)[: DEFAULT_LIMITS.max_detections]
        results.append(found.only(best))
    return results


def sides(args: Namespace, dataset: CSVDataset) -> dict[str, Function]:
    """What is timed: from files to scores."""
    model = open_model(args, dataset)
    plain = PlainRetinaNet(model)
    workers = usable_workers(3)

    def ours(autocast: torch.dtype | None) -> CocoScores:
        found = predict(model, dataset, batch_size=4, workers=workers, autocast=autocast)
        return score_coco(dataset, found)

    def plainly(samples: Iterable[Sample]) -> CocoScores:
        return score_coco(dataset, detect_plainly(plain, samples))

    indices = range(len(dataset))
    paths = [dataset.image_path(index) for index in indices]
    return {
        "ours, fp32": lambda: ours(None),
        "ours, bf16": lambda: ours(torch.bfloat16),
        "plain": lambda: plainly(read_sample(path, args.side, longest(args)) for path in paths),
        "plain, on our pixels": lambda: plainly(dataset[index] for index in indices),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = flags(argv)
    scores: dict[str, CocoScores] = {}
    with tempfile.TemporaryDirectory() as name:
        dataset = open_data(args, Path(name))

        def keeping(side: str, function: Function) -> Function:
            return lambda: scores.update({side: function()})  # type: ignore[dict-item]

        functions = {side: keeping(side, run) for side, run in sides(args, dataset).items()}
        time = medians(functions, args.repeats, warm_up=0)
    what = f"evaluation of {len(dataset)} images"
    fp32, bf16, plain, same = time.values()
    show(
        [
            Row(f"{what}, fp32: the plain loop", fp32, plain, faster=2),
            Row(f"{what}, bf16: the plain loop", bf16, plain, faster=4),
            Row(f"{what}, fp32: the plain loop, images read our way", fp32, same),
        ]
    )
    lines = [[stat, *(f"{side.stats[stat]:.4f}" for side in scores.values())] for stat in STATS]
    print(markdown(["", *scores], lines))
    ours, reference = scores["ours, fp32"].stats, scores["plain, on our pixels"].stats
    difference = max(abs(ours[stat] - reference[stat]) for stat in STATS)
    print(
        f"\nfp32 against the plain detection on the same pixels: at most {difference:.6f} apart\n"
    )


if __name__ == "__main__":
    main()
