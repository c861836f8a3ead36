"""The sets of YOLO data: of `data.yaml`, of `obj.data`, or of a folder beside a list of classes."""

from pathlib import Path

from retinanet.data.formats.labels import Listing, Sets, divided, relative_name
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
    set_place,
    wrong,
)
from retinanet.data.formats.yolo.labels import NAME_FILES, LabelFiles, YoloSet, has_labels
from retinanet.errors import DataError, printable, shown


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
        sets["val" if key == "valid" else key] = YoloSet(
            listing, root, names, there, keypoints=keypoints
        )
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


def _folder_sets(listing: Listing) -> Sets:
    """The sets of a folder with class names, and labels in `labels/` or beside the images."""
    names_file = _names_file(listing)
    if names_file is None:
        return {}
    names = checked_names(names_file, listed_names(names_file))
    images = listing.images
    files = LabelFiles()
    folder = "" if any(files.of(image) for image in images) else _label_folder(listing)
    if not any(LabelFiles(folder).of(image) for image in images):
        return {}
    by_set = divided(listing.path, images)
    return {
        name: YoloSet(listing, listing.path, names, images=found, labels=folder).read
        for name, found in by_set.items()
    }


def _names_file(listing: Listing) -> Path | None:
    """The file that lists the classes, at the top of the folder or in one of its folders."""
    files = [
        (file.parent != listing.path, file.name.lower() not in NAME_FILES, file)
        for file in listing.files(*NAME_FILES, ".names")
        if file.name.lower() in NAME_FILES or file.suffix == ".names"
    ]
    near = [found for found in files if listing.path in found[2].parents[:2]]
    return min(near)[2] if near else None


def _label_folder(listing: Listing) -> str:
    """The one folder of labels of images that lie in one other folder; "" where there is none."""
    stems = {image.stem for image in listing.images}
    texts = [file for file in listing.files(".txt") if file.stem in stems]
    folders = {str(file.parent) for file in texts}
    images = {image.parent for image in listing.images}
    return folders.pop() if len(folders) == len(images) == 1 else ""


def nameless(listing: Listing) -> str:
    """The first YOLO label file of data whose classes no file names; "" where there is none."""
    files = LabelFiles(_label_folder(listing))
    found = filter(None, map(files.of, listing.images))
    return next((file for file in found if files.is_regular(file) and has_labels(file)), "")
