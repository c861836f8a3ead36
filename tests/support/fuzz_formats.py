"""Readers of labelled folders, to be fuzzed: one file is the input, the rest is good."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from retinanet.data import datasets
from retinanet.data.formats.recognise import recognise
from tests.data.formats.exports import labelme_json, text, voc_xml, yolo_line

SIZE = (100, 80)  # width, height
NAMES = ("cow", "big, bad wolf")
BOXES = [(10, 20, 50, 60, "cow"), (5.5, 8, 90, 70, "big, bad wolf")]

Read = Callable[[bool], datasets.Data]


def opened(path: Path, root: Path, place: Path, name: str) -> Read:
    """Reads a folder in which the input stands at its place, strictly or not.

    Images' headers are not looked at: they are fuzzed by themselves.
    """
    if not (root / "images" / "picture.jpg").exists():
        for stem in ("picture", "other"):
            image = root / "images" / f"{stem}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE).save(image)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)

    def read(strict: bool) -> datasets.Data:
        format_, sets = recognise(root, name)
        part = next(iter(sets))
        with patch.object(datasets, "read_sizes", _sizes):
            return format_.open(root, sets[part], strict=strict)

    return read


def _sizes(paths: Sequence[str], *_: object) -> list[tuple[int, int]]:
    return [(SIZE[1], SIZE[0])] * len(paths)


def yolo_labels(path: Path) -> Read:
    """The labels of an image, beside good ones of another."""
    root = path.parent / "pictures_yolo"
    if not root.exists():
        text(root / "classes.txt", *NAMES)
        text(root / "labels" / "other.txt", yolo_line(BOXES[0], NAMES))
    return opened(path, root, root / "labels" / "picture.txt", "yolo")


def yolo_yaml(path: Path) -> Read:
    """A `data.yaml`, beside good images and labels."""
    root = path.parent / "data_yolo"
    if not root.exists():
        text(root / "labels" / "picture.txt", yolo_line(BOXES[0], NAMES))
        text(root / "some.txt", "images/picture.jpg")
    return opened(path, root, root / "data.yaml", "yolo")


def voc(path: Path) -> Read:
    """The objects of an image, beside good ones of another."""
    root = path.parent / "pictures_voc"
    if not root.exists():
        text(root / "images" / "other.xml", voc_xml("other.jpg", BOXES))
    return opened(path, root, root / "images" / "picture.xml", "voc")


def labelme(path: Path) -> Read:
    """The shapes of an image, beside good ones of another."""
    root = path.parent / "pictures_labelme"
    if not root.exists():
        text(root / "images" / "other.json", labelme_json("other.jpg", BOXES))
    return opened(path, root, root / "images" / "picture.json", "labelme")


# ---- good files, and words to put into them


def yolo_label_samples() -> list[bytes]:
    """Boxes, polygons, rotated boxes."""
    lines = [yolo_line(box, NAMES) for box in BOXES]
    return [
        "\n".join(lines).encode(),
        b"0 0.5 0.5 0.1 0.1\r\n1 .5 .5 1e-1 1e-1\r\n",
        b"1 0.1 0.2 0.5 0.2 0.3 0.8\n0 0.2 0.5 0.4 0.1 0.6 0.5 0.4 0.9\n",
        b"",
    ]


def yaml_samples() -> list[bytes]:
    """As Roboflow, Ultralytics and people write it."""
    return [
        b"train: ../images\nval: ../nowhere/images\n\nnc: 2\nnames: ['cow', 'big, bad wolf']\n",
        b"path: . # root\ntrain: images # 2 images\ntest:\nnames:\n  0: cow\n  1: big, bad wolf\n",
        b"names: &n [cow, 'no']\ntrain: some.txt\nmore: *n\n",
        b"train:\n  - images\n  - some.txt\nnames:\n- cow\n- cat\nkpt_shape: [17, 3]\n",
    ]


def voc_samples() -> list[bytes]:
    """As labelImg, and with fractions, marks, an encoding; polygons and rotated boxes."""
    polygon = "<polygon><pt><x>1</x><y>2</y></pt><pt><x>30</x><y>40</y></pt></polygon>"
    turned = "<cx>30</cx><cy>40</cy><w>20</w><h>10</h><angle>0.5</angle>"
    objects = f"<object><name>cow</name><deleted>0</deleted>{polygon}</object>"
    objects += f"<object><name>cat</name><robndbox>{turned}</robndbox></object>"
    plain = voc_xml("picture.jpg", BOXES, difficult={1: 1})
    return [
        plain.encode(),
        b'<?xml version="1.0" encoding="ISO-8859-1"?>\n' + plain.encode(),
        plain.replace(">", ">\n").encode(),
        voc_xml("../elsewhere/picture.png", []).encode("utf-16"),
        f"<annotation><filename>picture.jpg</filename>{objects}</annotation>".encode(),
    ]


def labelme_samples() -> list[bytes]:
    """Rectangles, polygons, points."""
    shapes = [
        {"label": "cow", "points": [[10, 16], [50.5, 16], [30, 64]], "shape_type": "polygon"},
        {"label": "cow", "points": [[10, 16]], "shape_type": "point"},
        {"label": "cat", "points": [[1, 2], [30, 40], [5, 5]]},
    ]
    return [
        labelme_json("picture.jpg", BOXES).encode(),
        labelme_json("..\\\\photos\\\\picture.jpg", [], shapes=shapes).encode(),
    ]


NUMBER_WORDS = [
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"1", b"2", b"1e-320", b"9" * 400, b"0.5"),
    *(b"1_0", b"0x1", b"1.5.", b"+1", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\xe4", b"\x1b[2J"),
    *(b"\n", b"\r\n", b"\r", b" ", b"\t", b"\xe2\x80\xa8", b"\xd9\xa1", b"0.5 " * 2000, b"cow"),
]
YAML_WORDS = [
    *NUMBER_WORDS,
    *(b"&a ", b"*a", b"*n", b"&a [*a, *a]", b"!!python/object/apply:os.system ", b"!!int ", b"!a "),
    *(
        b"<<: ",
        b"? ",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"|\n",
        b">\n",
        b"---\n",
        b"...\n",
        b"~",
    ),
    *(b"%YAML 1.1\n", b"'", b'"', b"#", b"@", b"`", b"null", b"true", b"2024-02-30", b"1:2:3"),
    *(b"../", b"/etc", b"C:\\", b"[" * 1500, b"train: ", b"val: ", b"names: ", b"path: ", b"\\x1b"),
]
XML_WORDS = [
    *NUMBER_WORDS,
    *(b"<", b">", b"</", b"/>", b"&", b"&lt;", b"&#1;", b"&#x41;", b"&a;", b"<![CDATA[", b"]]>"),
    *(
        b"<!DOCTYPE a [",
        b'<!ENTITY a "b">',
        b"<?",
        b"<!--",
        b"-->",
        b'encoding="utf-16"',
        b"xmlns=",
    ),
    *(b"<object>", b"</object>", b"<name>", b"<bndbox>", b"<xmin>", b"</xmin>", b"<filename>"),
    *(b"<difficult>1</difficult>", b"</annotation>", b"../", b"/etc/passwd", b"<a>" * 2000),
]
