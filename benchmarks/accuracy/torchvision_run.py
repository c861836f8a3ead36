"""Train torchvision's RetinaNet by a plain loop in its fastest setting, on data of ours.

channels_last and bf16 autocast, with its loss in float32; our reader, flips and batches, so that
it sees the same images in the same order; our optimizers, for a like choice of settings.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms import Compose

from benchmarks.sides.cases import torchvision_model
from retinanet.anchors import RATIOS, SCALES, SIZES
from retinanet.cli.flags import add_learning_flags, learning_settings
from retinanet.cli.parser import Parser
from retinanet.data.batches import AspectRatioBasedSampler, Batch, collater
from retinanet.data.datasets import CSVDataset
from retinanet.data.transforms import Augmenter, Resizer
from retinanet.evaluation.measure import measure
from retinanet.inference.prediction import to_original
from retinanet.postprocess import Detections
from retinanet.training.optim import OptimConfig
from retinanet.weights.pretrained import start_weights


def flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The names are train.py's."""
    parser = Parser("Train torchvision's RetinaNet by a plain loop, on data of ours.")
    for name in ("csv_train", "csv_classes", "csv_val", "weights", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("depth", "min_side", "max_side", "epochs", "batch_size", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--anchor_sizes", type=float, nargs=len(SIZES), default=SIZES)
    parser.add_argument("--share", type=float, default=1.0, help="of the epochs' steps (all: 1)")
    add_learning_flags(parser.add_argument_group("learning"))
    args = parser.parse(argv)
    if args.lr is None or args.schedule == "plateau":
        parser.error("give --lr, and --schedule cosine or --schedule step")
    return args


def anchors_of(sizes: Sequence[float]) -> AnchorGenerator:
    """Theirs, whole pixels, with other sizes."""
    shapes = tuple(tuple(int(size * scale) for scale in SCALES) for size in sizes)
    return AnchorGenerator(shapes, (RATIOS,) * len(shapes))


def losses(model: TorchvisionRetinaNet, batch: Batch) -> torch.Tensor:
    """The sum of both losses of a batch of uint8 images."""
    images = [image.float() / 255 for image in batch["img"]]
    boxes = [rows[rows[:, 4] >= 0] for rows in batch["annot"]]
    targets = [{"boxes": rows[:, :4], "labels": rows[:, 4].long()} for rows in boxes]
    with torch.autocast("cpu", torch.bfloat16):
        found: dict[str, torch.Tensor] = model(images, targets)
    return torch.stack(list(found.values())).sum()


def train(model: TorchvisionRetinaNet, dataset: CSVDataset, args: argparse.Namespace) -> None:
    """All steps of the epochs, or a share of them."""
    sampler = AspectRatioBasedSampler(dataset, args.batch_size, seed=args.seed)
    batches = DataLoader(dataset, batch_sampler=sampler, collate_fn=collater)
    steps = round(args.share * args.epochs * len(sampler))
    optim = OptimConfig(**learning_settings(args), steps=steps)
    optimizer = optim.make_optimizer(model.parameters())
    model.train()
    model.transform._skip_resize = True  # in training: the batches are resized, and padded
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    for step, batch in enumerate(itertools.islice(endless, steps)):
        optimizer.param_groups[0]["lr"] = optim.lr_at(step)
        optimizer.zero_grad()
        losses(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), args.clip_norm)
        optimizer.step()


def in_float32(_: nn.Module, __: object, outputs: dict[str, torch.Tensor]) -> object:
    """What a part of the network says: torchvision makes bf16 anchors of bf16 features."""
    return {name: value.float() for name, value in outputs.items()}


def detect(model: TorchvisionRetinaNet, dataset: CSVDataset) -> list[Detections]:
    """Detections in pixels of the files, one image at a time."""
    model.eval()
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for index in range(len(dataset)):
            sample = dataset[index]
            height, width = sample["size"]
            image = sample["img"][:height, :width].permute(2, 0, 1).float() / 255
            (result,) = model([image])
            boxes = Detections(result["scores"], result["labels"], result["boxes"])
            found.append(to_original(boxes, sample))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, and write COCO's numbers."""
    args = flags(argv)
    resizer = Resizer(args.min_side, args.max_side)
    steps = Compose([Augmenter(args.seed), resizer])
    dataset = CSVDataset(args.csv_train, args.csv_classes, steps)
    validation = CSVDataset(args.csv_val, args.csv_classes, resizer)
    weights = {} if args.weights == "none" else start_weights(args.weights, args.depth).weights
    norm = FrozenBatchNorm2d if args.batch_norm == "frozen" else nn.BatchNorm2d
    model = torchvision_model(
        args.min_side,
        args.depth,
        dataset.num_classes(),
        norm,
        seed=args.seed,
        trainable=args.trainable_layers,
    )
    model.transform.max_size = args.max_side
    model.anchor_generator = anchors_of(args.anchor_sizes)
    for part in (model.backbone, model.head):
        part.register_forward_hook(in_float32)
    body = model.backbone.body
    known = body.state_dict()
    body.load_state_dict({k: v for k, v in weights.items() if k in known}, strict=bool(weights))
    train(model.to(memory_format=torch.channels_last), dataset, args)
    scores = measure(validation, detect(model, validation))
    Path(args.output).write_text(json.dumps(scores.numbers))


if __name__ == "__main__":
    main()
