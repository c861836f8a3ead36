"""The sets of YOLO data: of `data.yaml`, of `obj.data`, or of a folder beside a list of classes."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from retinanet.data.formats.labels import (
    Listing,
    Sets,
    divided,
    folder_set,
    relative_name,
    set_of,
)
from retinanet.data.formats.yolo.data_file import (
    DATA_FILES,
    SETS,
    checked_names,
    class_names,
    data_folder,
    has_sets,
    listed_names,
    looks_like_data,
    read_data,
    same_place,
    set_place,
    wrong,
)
from retinanet.data.formats.yolo.labels import NAME_FILES, LabelFiles, YoloSet, has_labels
from retinanet.errors import DataError, counted, printable, shown

NAMES_DEPTH = 3  # folders below that of the data in which classes are listed: train/labels


def find_yolo(listing: Listing) -> Sets:
    """The sets of a YOLO folder, of its `data.yaml`, or none where it is no YOLO data.

    Raises:
        DataError: a `data.yaml` that cannot be read, or whose sets are not there.
    """
    if listing.is_folder:
        file = _data_file(listing)
        return _described_sets(listing, file) if file else _folder_sets(listing)
    is_data = listing.path.suffix.lower() in DATA_FILES and looks_like_data(listing.path)
    return _described_sets(listing, listing.path) if is_data else {}


def _data_file(listing: Listing) -> Path | None:
    """The file that names sets and classes: at the top, or nearest to it and with sets there.

    Raises:
        DataError: several, which nothing tells apart.
    """
    files = [file for file in listing.files(*DATA_FILES) if looks_like_data(file)]
    there = [file for file in files if has_sets(file)]
    at_top = [file for file in files if file.parent == listing.path]
    nearest = min((len(file.parts) for file in there), default=0)
    found = (
        [file for file in at_top if file in there]
        or [file for file in at_top if file.suffix != ".data"]  # and its sets are an error
        or [file for file in there if len(file.parts) == nearest]
    )
    found = [file for file in found if file.stem == "data"] or found
    if len(found) > 1:
        names = " and ".join(relative_name(file, listing.path) for file in found[:3])
        raise DataError(
            f"{printable(listing.path)}: {len(found)} files that describe sets, such as"
            f" {printable(names)}; expected one; give it as --data FILE"
        )
    return found[0] if found else None


def _described_sets(listing: Listing, file: Path) -> Sets:
    content = read_data(file)
    names = class_names(file, content)
    root = data_folder(file, content)
    keypoints = "kpt_shape" in content
    sets: dict[str, YoloSet] = {}
    absent = []
    named: dict[str, tuple[str, Path]] = {}  # by key: the first place of a set
    for key in SETS:
        given = content.get(key)
        if given in (None, "", "~", "null", []):
            continue
        places = given if isinstance(given, list) else [given]
        if not all(isinstance(place, str) for place in places):
            raise wrong(file, f"{key} is {shown(given)}; expected a folder, a list, or a .txt")
        found = {place: set_place(root, file, place) for place in places}
        lost = [place for place, there in found.items() if there is None]
        if lost:
            absent.append((key, shown(lost[0])))
            continue
        there = [place for place in found.values() if place]
        named[key] = places[0], there[0]
        sets[set_of(key)] = YoloSet(listing, root, names, there, keypoints=keypoints)
    _check_apart(file, named)
    for key, place in absent:
        # Exports name the other folders whether or not there are any.
        if key == "train" or not sets:
            raise wrong(
                file,
                f"{key}: {place} is not below {printable(root)}; expected a folder of images, or a"
                " .txt that lists them; correct it, or set path: to the folder of the data",
            )
        if key != "test" and "train" in sets:
            sets["train"].remarks.append(f"{printable(file)}: {key}: {place} is not there")
    if not sets:
        raise wrong(file, "no train, val or test; expected at least one; add it")
    return {name: found.read for name, found in sets.items()}


def _check_apart(file: Path, named: Mapping[str, tuple[str, Path]]) -> None:
    """Refuse sets of different names of which only one folder is left, that of all images."""
    for (key, (given, place)), (other, (second, other_place)) in combinations(named.items(), 2):
        if place == other_place and not same_place(given, second):
            raise wrong(
                file,
                f"{key}: {shown(given)} and {other}: {shown(second)} are both {printable(place)}"
                f" here; expected a folder each; correct them, or remove {other}:",
            )


def _folder_sets(listing: Listing) -> Sets:
    """The sets of a folder with class names, and labels in `labels/` or beside the images."""
    names_files = _names_files(listing)
    if not names_files:
        return {}
    images = listing.images
    files = LabelFiles(listing.path)
    folder = "" if any(files.of(image) for image in images) else _label_folder(listing)
    files = LabelFiles(listing.path, folder)
    by_set = divided(listing.path, images)
    with_labels = [name for name, found in by_set.items() if any(map(files.of, found))]
    sets: dict[str, YoloSet] = {}
    for name in with_labels:
        names_file = _names_of(name, names_files, listing)
        names = checked_names(names_file, listed_names(names_file))
        sets[name] = YoloSet(listing, listing.path, names, images=by_set[name], labels=folder)
    for first in [*sets.values()][:1]:
        first.remarks += [
            f"the set {name}: {counted(len(found), 'image')} without any label: not read"
            for name, found in by_set.items()
            if name not in sets
        ]
    return {name: found.read for name, found in sets.items()}


def _names_files(listing: Listing) -> list[Path]:
    """The files that list classes, in the folder or not far below it; the likeliest first."""
    files = [
        (len(file.parts), file.name.lower() not in NAME_FILES, file)
        for file in listing.files(*NAME_FILES, ".names")
        if file.name.lower() in NAME_FILES or file.suffix == ".names"
    ]
    return [file for _, _, file in sorted(files) if listing.path in file.parents[:NAMES_DEPTH]]


def _names_of(name: str, files: Sequence[Path], listing: Listing) -> Path:
    """The file that lists the classes of a set: its own, else that of all.

    labelImg writes one into each folder, in the order in which it saw the classes.

    Raises:
        DataError: several, which say different things.
    """
    own = [file for file in files if folder_set(file, listing.path) == name]
    of_all = [file for file in files if folder_set(file, listing.path) == "all"]
    first, *others = own or of_all or files
    for other in others:
        alike = (len(other.parts), other.name) == (len(first.parts), first.name)
        if alike and listed_names(other) != listed_names(first):
            one, two = (printable(relative_name(file, listing.path)) for file in (first, other))
            raise DataError(
                f"{printable(listing.path)}: {one} and {two} list different classes; expected one"
                " list, in the order of the numbers in the labels; correct one, or give each"
                " folder as --data FOLDER"
            )
    return first


def _label_folder(listing: Listing) -> str:
    """The one folder of labels of images that lie in one other folder; "" where there is none."""
    stems = {image.stem for image in listing.images}
    texts = [file for file in listing.files(".txt") if file.stem in stems]
    folders = {str(file.parent) for file in texts}
    images = {image.parent for image in listing.images}
    return folders.pop() if len(folders) == len(images) == 1 else ""


def nameless(listing: Listing) -> str:
    """The first YOLO label file of data whose classes no file names; "" where there is none."""
    files = LabelFiles(listing.path, _label_folder(listing))
    found = filter(None, map(files.of, listing.images))
    return next((file for file in found if files.is_regular(file) and has_labels(file)), "")
