"""What the scripts share: how one ends, and the data and the model that its flags name."""

import argparse
import functools
import os
import signal
import sys
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torchvision.transforms import Compose

from retinanet.checkpoint import Checkpoint
from retinanet.csv_annotations import read_classes
from retinanet.dataloader import CocoDataset, CSVDataset, Data, Normalizer, Resizer
from retinanet.errors import DataError
from retinanet.flags import Parser, detection_limits
from retinanet.inference import SampleDataset, predict
from retinanet.logger import say
from retinanet.postprocess import Detections
from retinanet.runtime import Runtime, StoppedError, part_from_peers, peers, usable_workers


def verdict(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for an error that its user can mend; 0 for a defect."""
    text = str(error)
    if isinstance(error, StoppedError | KeyboardInterrupt):
        number = error.signal_number if isinstance(error, StoppedError) else signal.SIGINT
        return 128 + number, text or "stopped"
    if isinstance(error, DataError | OSError):  # OSError: no room, no permission
        return 1, text
    if isinstance(error, RuntimeError | MemoryError):
        if "DataLoader worker" in text:
            return 1, (
                "a loader process died, perhaps for want of memory; lower --workers or"
                f" --batch_size ({text.splitlines()[0]})"
            )
        wants = ("out of memory", "not enough memory", "can't allocate memory")  # in torch's words
        if isinstance(error, MemoryError) or any(want in text for want in wants):
            return 1, "out of memory; lower --batch_size, --max_side or --workers"
        if peers() != (0, 1) and "peer" in text:
            return 1, "another process of this run has ended; its message says why"
    return 0, ""


def script(main: Callable[[Sequence[str] | None], None]) -> Callable[..., int]:
    """Make a script's main return its exit code: 0, or 1 with one line where the data is wrong."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            main(argv)
        except (Exception, KeyboardInterrupt) as error:
            code, message = verdict(error)
            if not code:
                raise
            sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {message}\n")
            # The frames of an error that crossed a loader are held by it, in a cycle, and hold its
            # workers: without this they live until the interpreter ends, and then die noisily.
            traceback.clear_frames(error.__traceback__)
            return code
        finally:
            part_from_peers()
        return 0

    return run


# ---- data ----


def evaluation_transform(min_side: int, max_side: int) -> Compose:
    """What evaluation and prediction do to an image."""
    return Compose([Resizer(min_side, max_side), Normalizer()])


def tell_notes(name: str, dataset: Data) -> None:
    """Say what a data set holds and what was noticed about it."""
    boxes = sum(len(dataset.load_annotations(i)) for i in range(len(dataset)))
    say(
        f"{name}: {len(dataset)} images below {dataset.images_root}, {boxes} boxes,"
        f" {dataset.num_classes()} classes"
    )
    for note in dataset.notes:
        say(f"  {note}")


def open_validation_data(
    parser: Parser, args: argparse.Namespace, checkpoint: Checkpoint, transform: Compose
) -> Data:
    """The data set that the flags name, of the checkpoint's classes.

    Raises:
        DataError: it cannot be read, or its classes are not the checkpoint's.
    """
    kind = args.dataset or ("coco" if args.coco_path else "csv")
    dataset: Data
    if kind == "coco":
        if not args.coco_path:
            parser.error("--dataset coco needs --coco_path")
        dataset = CocoDataset(args.coco_path, args.coco_val_set, transform, strict=args.strict)
    else:
        if not args.csv_val:
            parser.error("no data is named; give --coco_path, or --csv_val")
        classes = args.csv_classes or {n: i for i, n in enumerate(checkpoint.class_names)}
        if not classes:
            parser.error("the model does not know its class names; give --csv_classes")
        dataset = CSVDataset(
            args.csv_val, classes, transform, args.csv_images_dir, strict=args.strict
        )
    check_classes(dataset, checkpoint, args.file or args.model)
    tell_notes("Validation data", dataset)
    return dataset


def predict_as_told(
    checkpoint: Checkpoint, dataset: SampleDataset, args: argparse.Namespace, runtime: Runtime
) -> list[Detections]:
    """The detections of a saved model, by the flags of detection and of the machine."""
    return predict(
        checkpoint.build(runtime.device),
        dataset,
        batch_size=args.batch_size,
        workers=usable_workers(args.workers),
        autocast=runtime.autocast,
        progress=True,
        **detection_limits(args),
    )


def checksum(dataset: Data) -> int:
    """A number that differs when images, their order or their boxes do."""
    value = 0
    for index in range(len(dataset)):
        name = os.path.relpath(dataset.image_path(index), dataset.images_root)
        value = zlib.crc32(name.encode(errors="surrogateescape"), value)
        value = zlib.crc32(dataset.load_annotations(index).tobytes(), value)
    return value


def describe_model(checkpoint: Checkpoint, runtime: Runtime) -> dict[str, str]:
    """What a reader of its numbers should know of a model."""
    return {
        "Network": f"ResNet-{checkpoint.config.depth} RetinaNet",
        "Images": f"{checkpoint.min_side}-{checkpoint.max_side} px",
        "Precision": runtime.precision,
    }


def shares_batches(runtime: Runtime) -> bool:
    """Whether DataParallel splits batches over several GPUs."""
    everywhere = runtime.device.type == "cuda" and runtime.device.index is None
    return everywhere and runtime.world_size == 1 and torch.cuda.device_count() > 1


def describe(runtime: Runtime) -> str:
    """Where and how precisely a run computes, and how it could be faster."""
    text = f"{runtime.device}, {runtime.precision}"
    if runtime.world_size > 1:
        text += f", {runtime.world_size} processes"
    elif shares_batches(runtime):
        gpus = torch.cuda.device_count()
        text += f"; {gpus} GPUs share each batch (faster: torchrun --nproc_per_node={gpus} ...)"
    return text


def check_classes(dataset: Data, checkpoint: Checkpoint, file: str) -> None:
    """Refuse a model of other classes than the data's.

    Raises:
        DataError: the numbers of classes differ, or the names where both are known.
    """
    names = checkpoint.class_names
    found, expected = checkpoint.config.num_classes, dataset.num_classes()
    if found != expected or (names and names != dataset.class_names):
        listed = f" ({_some(names)})" if names else ""
        raise DataError(
            f"{file}: the model has {found} classes{listed}, the data {expected}"
            f" ({_some(dataset.class_names)}); give the data that it was trained for, or train one"
            " with train.py --weights"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def class_names(csv_classes: str | None, checkpoint: Checkpoint, file: str) -> tuple[str, ...]:
    """Names by label for images without annotations: of a class file, or the model's own.

    Raises:
        DataError: the class file has another number of classes than the model.
    """
    if csv_classes is None:
        return checkpoint.names
    K = checkpoint.config.num_classes
    names = tuple(read_classes(csv_classes))
    if len(names) != K:
        raise DataError(
            f"{csv_classes}: lists {len(names)} classes ({_some(names)}), {file} has {K};"
            " give the class file that it was trained with"
        )
    return names
