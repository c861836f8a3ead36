"""The sets of --data: those of the folder, or a validation set cut from it."""

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torchvision.transforms import Compose

from retinanet.data.datasets import Data
from retinanet.data.formats.labels import Listing, SetFile, left_out
from retinanet.data.formats.recognise import recognise
from retinanet.data.near_duplicates import alike
from retinanet.data.splits import VAL_LIST, choose_validation, read_list
from retinanet.errors import DataError, counted, printable
from retinanet.runtime.console import say
from retinanet.runtime.files import path_below

# The names of the sets that serve as a part, the best first.
SERVES = {"train": ("train", "all"), "val": ("val", "test")}
SPLIT_SEED = 0  # not the run's: runs of other seeds are compared on the same images


def open_labelled(
    args: argparse.Namespace,
    part: str,
    transform: Compose | None = None,
    classes: Mapping[str, int] | None = None,
    *,
    skip_unreadable: bool = False,
) -> Data | None:
    """The training or the validation set of a labelled folder; None where it has no such set.

    Args:
        args: the flags, of which --data, --format and --strict count.
        part: train or val.
        transform: applied to every sample.
        classes: name to label, of the data that is trained on; else the folder's own.
        skip_unreadable: leave out images that cannot be read, instead of raising.

    Raises:
        DataError: the format cannot be told, or something is wrong with the set.
    """
    root = Path(args.data)
    format_, sets = recognise(root, args.format)
    name = next((name for name in SERVES[part] if name in sets), None)
    if name is None:
        return None
    source = sets[name]
    said = f"{root}: {format_.title}"
    if len(sets) > 1:
        said += f", the set {name} of {', '.join(sets)}"
    if isinstance(source, SetFile):
        said += f": {printable(path_below(source.path, source.places.below))}"
    say(said)
    dataset = format_.open(
        root,
        source,
        transform,
        class_names=sorted(classes, key=classes.__getitem__) if classes else None,
        strict=args.strict,
        skip_unreadable=skip_unreadable,
    )
    no_boxes = not any(len(dataset.load_annotations(index)) for index in range(len(dataset)))
    if no_boxes and (part == "train" or not dataset.num_classes()):
        raise DataError(f"{root}: no boxes in the set {name}; expected some; label the images")
    if no_boxes:
        dataset.notes.append(f"no boxes in the set {name}: no AP can be measured")
    if isinstance(source, SetFile):
        below = source.places.below
        used = (below / image for image in dataset.image_names)
        lack = f"an entry in {printable(source.path.name)}"
        dataset.notes += left_out(Listing(below), name, used, lack)
    return dataset


def cut_validation_set(dataset: Data, share: float, *, near_duplicates: bool) -> Data:
    """Take a validation set out of a training set, in place, and return it.

    Args:
        dataset: to train on; loses the images of the validation set.
        share: of the images to validate on.
        near_duplicates: whether images that look alike stay on one side.
    """
    names = dataset.image_names
    groups = list(range(len(dataset)))
    if near_duplicates:
        for group in alike([dataset.image_path(index) for index in groups]):
            for index in group:
                groups[index] = group[0]
    if len(set(groups)) == 1:  # such as the frames of one film
        say("All images look alike: the validation set is cut from among them anyway")
        groups = list(range(len(dataset)))
    labels = [dataset.load_annotations(index)[:, 4].astype(int) for index in range(len(dataset))]
    counts = np.array([np.bincount(found, minlength=dataset.num_classes()) for found in labels])
    chosen = choose_validation(names, counts, groups, share=share, seed=SPLIT_SEED)
    validation = copy.copy(dataset)
    validation.notes = []
    dataset.keep(sorted(set(range(len(dataset))).difference(chosen)))
    validation.keep(chosen)
    say(
        f"No validation set is there: one is cut, {counted(len(validation), 'image')} of"
        f" {len(validation) + len(dataset):,}, the same in every run (--val_share)"
    )
    return validation


def open_for_model(
    args: argparse.Namespace,
    model_file: str | Path,
    transform: Compose | None,
    classes: Mapping[str, int] | None,
    *,
    skip_unreadable: bool = False,
) -> Data:
    """The images of a labelled folder on which a model is to be evaluated.

    The folder's validation set; else those that the model's run has set aside; else all.

    Raises:
        DataError: there are none, or something is wrong with them.
    """
    dataset = open_labelled(args, "val", transform, classes, skip_unreadable=skip_unreadable)
    if dataset:
        return dataset
    dataset = open_labelled(args, "train", transform, classes, skip_unreadable=skip_unreadable)
    if dataset is None:
        raise DataError(f"{args.data}: no set to evaluate on; expected val, test or train")
    aside = Path(model_file).parent / VAL_LIST
    if aside.is_file():
        dataset.keep(read_list(aside, dataset.image_names))
        say(f"Evaluating on the images that the model's run set aside: {aside}")
    else:
        say("There is no validation set: evaluating on all images, the model's own among them")
    return dataset
