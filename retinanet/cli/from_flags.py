"""The data sets, class names and detections that a script's flags name."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torchvision.transforms import Compose

from retinanet.cli.flags import choose_source, detection_limits
from retinanet.cli.labelled_sets import cut_validation_set, open_for_model, open_labelled
from retinanet.cli.parser import Parser
from retinanet.cli.train_flags import fill_from_data
from retinanet.data.datasets import CocoDataset, CSVDataset, Data
from retinanet.data.formats.class_list import read_classes
from retinanet.data.shapes import TRAIN_IMAGES, VAL_IMAGES, write_shapes
from retinanet.data.transforms import Sample, evaluation_transform, training_transform
from retinanet.errors import DataError, counted, first_few
from retinanet.inference.batching import Item
from retinanet.inference.prediction import SampleDataset, predict, predict_stream
from retinanet.inference.tiles import Tiling
from retinanet.postprocess import Detections
from retinanet.runtime.console import say
from retinanet.runtime.device import Runtime, usable_workers
from retinanet.runtime.distributed import barrier, is_main_process
from retinanet.weights.checkpoint import Checkpoint

SAMPLE_SIZE = {"train_images": TRAIN_IMAGES, "val_images": VAL_IMAGES}


def tell_notes(name: str, dataset: Data) -> None:
    """Print the counts of a data set and the notes on it."""
    boxes = sum(len(dataset.load_annotations(i)) for i in range(len(dataset)))
    say(
        f"{name}: {counted(len(dataset), 'image')} below {dataset.images_root},"
        f" {counted(boxes, 'box')}, {counted(dataset.num_classes(), 'class')}"
    )
    for note in dataset.notes:
        say(f"  {note}")


def open_set(
    args: argparse.Namespace,
    part: str,
    transform: Compose | None = None,
    classes: str | Mapping[str, int] | None = None,
    *,
    skip_unreadable: bool = False,
) -> Data | None:
    """One of the data sets that the flags name; None where they name none.

    Args:
        args: the flags; `args.dataset` is data, coco or csv.
        part: train or val.
        transform: applied to every sample.
        classes: of CSV data, as `CSVDataset` takes them; else --csv_classes.
        skip_unreadable: leave out images that cannot be read, instead of raising.

    Raises:
        DataError: with everything that is wrong with it.
    """
    if args.dataset == "data":
        names = classes if isinstance(classes, Mapping) else None
        return open_labelled(args, part, transform, names, skip_unreadable=skip_unreadable)
    if args.dataset == "coco":
        return CocoDataset(
            args.coco_path,
            vars(args)[f"coco_{part}_set"],
            transform,
            class_names=list(classes) if isinstance(classes, Mapping) else None,
            strict=args.strict,
            skip_unreadable=skip_unreadable,
        )
    file = vars(args)[f"csv_{part}"]
    return file and CSVDataset(
        file,
        classes or args.csv_classes,
        transform,
        args.csv_images_dir,
        strict=args.strict,
        skip_unreadable=skip_unreadable,
    )


def open_data(args: argparse.Namespace) -> tuple[Data, Data | None]:
    """The data to train on, and the data to evaluate on if the flags name some.

    Raises:
        DataError: something is wrong with one.
    """
    if args.dataset == "shapes":
        folder = Path(args.output_dir) / "shapes"
        if is_main_process():
            write_shapes(folder, **SAMPLE_SIZE)
        barrier()
        sample = write_shapes(folder, **SAMPLE_SIZE)  # finds it
        args.csv_train, args.csv_val = sample.csv_train, sample.csv_val
        args.csv_classes = sample.csv_classes
    skips = args.on_bad_image == "skip"
    train = open_set(args, "train", skip_unreadable=skips)
    if train is None:
        raise DataError(f"{args.data}: no set to train on; expected train, or one undivided set")
    val = open_set(args, "val", classes=train.classes, skip_unreadable=skips)
    if args.dataset == "data":
        if val is None and len(train) > 1:
            val = cut_validation_set(
                train, args.val_share, near_duplicates=not args.no_near_duplicates
            )
        fill_from_data(args, train)
    sides = args.min_side, args.max_side
    train.transform = training_transform(*sides, augment=args.augment, seed=args.seed)
    tell_notes("Training data", train)
    if val is not None:
        val.transform = sample_transform(args)
        tell_notes("Validation data", val)
    return train, val


def open_validation_data(
    parser: Parser,
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    transform: Compose | None,
    *,
    skip_unreadable: bool = False,
) -> Data:
    """The data set that the flags name, of the checkpoint's classes.

    Args:
        parser: of the flags, for errors.
        args: the flags.
        checkpoint: of the model.
        transform: applied to every sample.
        skip_unreadable: leave out images that cannot be read, instead of raising.

    Raises:
        DataError: it cannot be read, or its classes are not the checkpoint's.
    """
    choose_source(parser, args)
    classes = args.csv_classes or {name: k for k, name in enumerate(checkpoint.class_names)}
    if args.dataset == "csv" and not classes:
        parser.error("the model does not know its class names; give --csv_classes")
    file = args.file or args.model
    dataset = open_for_evaluation(args, file, transform, classes, skip_unreadable=skip_unreadable)
    check_classes(dataset, checkpoint, file)
    tell_notes("Validation data", dataset)
    return dataset


def open_for_evaluation(
    args: argparse.Namespace,
    model_file: str | Path,
    transform: Compose | None,
    classes: str | Mapping[str, int] | None,
    *,
    skip_unreadable: bool = False,
) -> Data:
    """The data set on which a model is to be evaluated, of the kind that `choose_source` chose.

    Args:
        args: the flags.
        model_file: of the model; beside it may lie the list of the images that its run set aside.
        transform: applied to every sample.
        classes: as `open_set` takes them.
        skip_unreadable: leave out images that cannot be read, instead of raising.

    Raises:
        DataError: it cannot be read.
    """
    if args.dataset == "data":
        known = classes if isinstance(classes, Mapping) else None
        return open_for_model(args, model_file, transform, known, skip_unreadable=skip_unreadable)
    dataset = open_set(args, "val", transform, classes, skip_unreadable=skip_unreadable)
    assert dataset is not None  # as the flags name one
    return dataset


def predict_by_flags(
    checkpoint: Checkpoint,
    dataset: SampleDataset,
    args: argparse.Namespace,
    runtime: Runtime,
    unreadable: dict[int, str] | None = None,
) -> list[Detections]:
    """Detect with a saved model, by the flags of detection and of the machine.

    `unreadable` takes in the images that are left out, as in `predict`.
    """
    return predict(
        checkpoint.build(runtime.device),
        dataset,
        detection_limits(args),
        batch_size=args.batch_size,
        workers=usable_workers(args.workers),
        autocast=runtime.autocast,
        progress=True,
        tiling=tiling(checkpoint),
        unreadable=unreadable,
    )


def with_tile_flags(checkpoint: Checkpoint, args: argparse.Namespace) -> Checkpoint:
    """The checkpoint with the tiles that the flags ask for; else its own, which is said."""
    tile, overlap = args.tile, args.tile_overlap
    if tile is None and checkpoint.tile:
        say(f"Pictures in tiles of {checkpoint.tile} px, as in training; --tile 0 cuts none")
    return replace(
        checkpoint,
        tile=checkpoint.tile if tile is None else tile or None,
        tile_overlap=checkpoint.tile_overlap if overlap is None else overlap,
    )


def tiling(settings: Checkpoint | argparse.Namespace) -> Tiling | None:
    """Tiling of a model, or that the flags of its training ask for, if any."""
    if not settings.tile:
        return None
    transform = evaluation_transform(settings.min_side, settings.max_side)
    return Tiling(settings.tile, settings.tile_overlap, transform)


def sample_transform(settings: Checkpoint | argparse.Namespace) -> Compose | None:
    """Transform of whole samples of a data set to detect in: none where they are cut first."""
    if settings.tile:
        return None
    return evaluation_transform(settings.min_side, settings.max_side)


def stream_by_flags(
    checkpoint: Checkpoint,
    items: Iterable[Item],
    load: Callable[[Item], Sample],
    args: argparse.Namespace,
    runtime: Runtime,
    *,
    threads: int = 0,
) -> Iterator[tuple[Item, Detections | DataError]]:
    """Detect with a saved model image by image, by the flags of detection and of the machine.

    Args:
        checkpoint: of the model.
        items: as `predict_stream` takes them.
        load: as `predict_stream` takes it.
        args: flags of detection and of the machine.
        runtime: device and precision.
        threads: that load; 0 loads in this one.

    Yields:
        Each item with its detections, or with the reason why it cannot be read.
    """
    return predict_stream(
        checkpoint.build(runtime.device),
        items,
        load,
        detection_limits(args),
        batch_size=args.batch_size,
        threads=threads,
        autocast=runtime.autocast,
        tiling=tiling(checkpoint),
    )


def check_classes(dataset: Data, checkpoint: Checkpoint, file: str) -> None:
    """Refuse a model of other classes than the data's.

    Raises:
        DataError: the numbers of classes differ, or the names where both are known.
    """
    names = checkpoint.class_names
    found, expected = checkpoint.config.num_classes, dataset.num_classes()
    if found != expected or (names and names != dataset.class_names):
        listed = f" ({first_few(names)})" if names else ""
        raise DataError(
            f"{file}: the model has {counted(found, 'class')}{listed}, the data {expected}"
            f" ({first_few(dataset.class_names)}); give the data that it was trained for, or train"
            " one with train.py --weights"
        )


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
            f"{csv_classes}: lists {counted(len(names), 'class')} ({first_few(names)}),"
            f" {file} has {K}; give the class file that it was trained with"
        )
    return names
