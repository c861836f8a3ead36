"""What is fuzzed: readers of files, with good files to change and words to put into them."""

import contextlib
import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from retinanet.data.datasets import CocoDataset, CSVDataset, Data
from retinanet.data.formats.class_list import read_classes
from retinanet.data.images import image_size, read_image
from retinanet.errors import DataError, printable
from retinanet.evaluation.coco import score_coco
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import Detections
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, load_foreign, read_weights
from tests.support import fuzz_formats
from tests.support.data_sets import coco_content
from tests.support.zips import saved

CLASSES = {"cat": 0, "dog": 1, "big, bad wolf": 2, "NA": 3}
NOTHING_FOUND = Detections(torch.zeros(0), torch.zeros(0).long(), torch.zeros(0, 4))

# ---- changing bytes ----


def changed(
    rng: random.Random, sample: bytes, others: Sequence[bytes], words: Sequence[bytes]
) -> bytes:
    """A sample after one to eight changes, most of them small."""
    data = bytearray(sample)
    for _ in range(1 + min(7, int(rng.expovariate(0.5)))):
        rng.choice(CHANGES)(rng, data, others, words)
    return bytes(data)


def _span(rng: random.Random, data: bytearray) -> slice:
    """A stretch of the data, short more often than long."""
    start = rng.randrange(len(data) + 1)
    length = int(2 ** rng.uniform(0, 10)) - 1
    return slice(start, min(len(data), start + length))


def _flip_a_bit(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_a_byte(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _insert_a_word(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(words)


def _replace_by_a_word(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    word = rng.choice(words)
    place = rng.randrange(len(data) + 1)
    data[place : place + len(word)] = word


def _remove(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    del data[_span(rng, data)]


def _repeat(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    span = _span(rng, data)
    data[span.stop : span.stop] = data[span] * rng.choice((1, 1, 2, 20))


def _move(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    span = _span(rng, data)
    piece = data[span]
    del data[span]
    place = rng.randrange(len(data) + 1)
    data[place:place] = piece


def _take_from_another(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    other = bytearray(rng.choice(others))
    data[_span(rng, data)] = other[_span(rng, other)]


def _cut(rng: random.Random, data: bytearray, others: Any, words: Any) -> None:
    del data[rng.randrange(len(data) + 1) :]


CHANGES = (
    *(_flip_a_bit, _set_a_byte, _insert_a_word, _replace_by_a_word, _remove, _repeat, _move),
    *(_take_from_another, _cut),
)


# ---- targets ----


@dataclass
class Target:
    """A reader, and what to give it."""

    name: str  # of the file
    samples: Callable[[], list[bytes]]
    words: list[bytes]
    read: Callable[[Path], object]  # raises AssertionError where a result is not right in itself
    change: Callable[..., bytes] = changed


CSV_WORDS = [
    *(b",", b'"', b"\n", b"\r\n", b"\r", b"\0", b" ", b"\t", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe4"),
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"1e-320", b"NA", b"True", b"False", b"0x1"),
    *(b"1_0", b"9" * 400, b'""', b'"a,b"', b",,,,,", b"cat", b"a.jpg", b"\xe2\x80\xa8", b"\x1a"),
    *(b"\x1b[2J", b"#", b"'", b"\\", b";", b"x1", b"path", b"1.5.", b"+1", b"\xc3\xa9", b"1,2"),
]


def csv_samples() -> list[bytes]:
    rows = b"a.jpg,1,2,30,40,cat\nb.jpg,,,,,\nc/d.jpg,0.5,1e1,7.25,80,dog\na.jpg,3,4,5,6,NA\n"
    return [
        rows,
        b"path,x1,y1,x2,y2,class\n" + rows,
        b"\xef\xbb\xbf" + rows.replace(b"\n", b"\r\n"),
        b'"a.jpg",1,2,3,4,"big, bad wolf"\n "b.jpg" , 1 , 2 , 3 , 4 , "cat" \n\n,,,,,\n',
        b"".join(b"%c.jpg,1,2,%d,40,cat\n" % (b"ab"[k % 2], 5 + k) for k in range(60)),
    ]


def read_csv(path: Path) -> None:
    """As a data set, over three images of 100 x 80 pixels beside it."""
    for name in ("a.jpg", "b.jpg", "c/d.jpg"):
        image = path.parent / name
        if not image.exists():
            image.parent.mkdir(exist_ok=True)
            Image.new("RGB", (100, 80)).save(image)
    check_data_set(lambda strict: CSVDataset(path, CLASSES, images_dir=path.parent, strict=strict))


def check_data_set(read: Callable[[bool], Data]) -> None:
    """Read a data set, and look whether it is right, and what a strict reading makes of it."""
    try:
        data = read(False)
    except DataError:
        assert _strictly(read) is None, "strict takes what is refused otherwise"
        raise
    strict = _strictly(read)
    assert (strict is None) == bool(data.repaired), data.repaired
    assert all(count > 0 for count in data.repaired.values())
    assert all(printable(note) == note for note in data.notes)
    assert len(data) > 0
    for index in range(len(data)):
        boxes = data.load_annotations(index)
        height, width = data.image_size(index)
        assert ((boxes[:, :4] >= 0) & (boxes[:, :4] <= [width, height, width, height])).all()
        assert (boxes[:, 2:4] > boxes[:, :2]).all()
        assert set(boxes[:, 4].tolist()) <= set(range(data.num_classes()))
        assert data.image_path(index).is_file()
        assert data.image_aspect_ratio(index) == width / height
        if strict:
            assert np.allclose(strict.load_annotations(index), boxes)


def _strictly(read: Callable[[bool], Any]) -> Any:
    try:
        return read(True)
    except DataError:
        return None


def class_samples() -> list[bytes]:
    return [
        b"cat,0\ndog,1\n",
        b"\xef\xbb\xbfname,id\r\n cat , 0\r\n\r\ndog,1\r\n",
        b'"big, bad wolf",0\nK\xc3\xa4fer,1\n"NA",2\n',
        b"".join(b"class %d,%d\n" % (k, k) for k in range(80)),
    ]


def read_class_file(path: Path) -> None:
    found = read_classes(path)
    assert list(found.values()) == list(range(len(found)))
    assert all(name and name == name.strip() == printable(name) for name in found)


JSON_WORDS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"false", b"NaN", b"Infinity"),
    *(b"-Infinity", b"1e999", b"-1", b"0", b"1.5", b"9" * 400, b'""', b'"\\ud800"', b'"a\\nb"'),
    *(b'"../a.jpg"', b'"/etc/passwd"', b'"c:\\\\a.jpg"', b'"a\\u0000.jpg"', b"[1,2,3,4]", b"\\u"),
    *(b'"id":', b'"image_id":', b'"category_id":', b'"bbox":', b'"area":', b'"iscrowd":', b"1"),
    *(b'"images":', b'"annotations":', b'"categories":', b'"file_name":', b'"name":', b'"height":'),
    *(b'"width":', b'"segmentation":', b'"info":', b"[[]]", b"{}", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"2", b"4", b"9", b"7", b"[" * 2000, b'"x"', b"1E400", b"-0", b"-0.0", b"\x00", b"\xe4"),
]


def coco_samples() -> list[bytes]:
    content = coco_content()
    content["annotations"][2] |= {"image_id": 9, "area": 4.5}
    whole = content | {"info": {"year": 2017}, "licenses": []}
    none = {**content, "annotations": []}
    return [json.dumps(content).encode(), json.dumps(whole, indent=1).encode(),
            json.dumps(none).encode()]  # fmt: skip


def read_coco_set(path: Path) -> None:
    """The input is put where a data set looks for it."""
    root = path.parent / "coco"
    images = root / "images/val"
    if not images.exists():
        images.mkdir(parents=True)
        (root / "annotations").mkdir()
        Image.new("RGB", (40, 30)).save(images / "a.jpg")
        Image.new("RGB", (30, 40)).save(images / "b.jpg")
    (root / "annotations/instances_val.json").write_bytes(path.read_bytes())
    check_data_set(lambda strict: CocoDataset(root, "val", strict=strict))
    data = CocoDataset(root, "val")
    assert len(set(data.class_names)) == data.num_classes() > 0
    assert all(printable(name) == name for name in data.class_names)
    for index in range(len(data)):
        assert data.image_path(index).resolve().is_relative_to(images.resolve())
    score_coco(data, [NOTHING_FOUND] * len(data))  # what pycocotools needs is there


def image_samples() -> list[bytes]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    smooth = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
    rgb, grey = Image.fromarray(smooth), Image.fromarray(smooth[..., 0])
    deep = Image.fromarray(rng.integers(0, 65536, (12, 16), dtype=np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    recipes: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (Image.fromarray(noise), "JPEG", {}),
        (rgb, "JPEG", {"progressive": True, "exif": turned}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"quality": 30}),
        *((rgb, "PNG", {"exif": turned}), (rgb.convert("P"), "PNG", {"transparency": 3})),
        *((grey.convert("LA"), "PNG", {}), (rgb.convert("1"), "PNG", {}), (deep, "PNG", {})),
        *((rgb, "WEBP", {"lossless": True}), (rgb, "WEBP", {"exif": turned})),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb.transpose(0)]}),
        *((rgb, "TIFF", {"exif": turned}), (rgb, "TIFF", {"compression": "tiff_lzw"})),
        *((rgb, "TIFF", {"compression": "jpeg"}), (rgb, "TIFF", {"compression": "packbits"})),
        *((rgb.convert("1"), "TIFF", {"compression": "group4"}), (deep, "TIFF", {})),
        (Image.fromarray(rng.random((12, 16), dtype=np.float32)), "TIFF", {}),
        *((rgb, "BMP", {}), (rgb.convert("P"), "BMP", {}), (rgb.convert("1"), "BMP", {})),
        *((rgb.convert("P"), "GIF", {"transparency": 3}), (rgb, "PPM", {}), (grey, "PPM", {})),
        (rgb.convert("P"), "GIF", {"save_all": True, "append_images": [rgb.convert("P")]}),
        *((rgb, "JPEG2000", {}), (rgb, "JPEG2000", {"irreversible": True})),
    ]
    return [_encoded(*recipe) for recipe in recipes]


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


IMAGE_WORDS = [
    *(b"\0\0", b"\xff\xff", b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"\xff\xda", b"\xff\xe1"),
    *(b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"IHDR", b"IDAT", b"IEND", b"eXIf"),
    *(b"Exif\0\0", b"RIFF", b"VP8 ", b"VP8X", b"ANIM", b"II*\0", b"MM\0*", b"BM", b"GIF89a", b","),
    *(b";", b"!\xf9\x04", b"P6\n", b"P3 ", b"99999999 ", b"\xff\x4f\xff\x51", b"\xff\x90", b"tRNS"),
    *(b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", b"iCCP", b"zTXt", b"\x80\0\0\0", b"\1\0\0\0", b"\n"),
]


def read_any_image(path: Path) -> None:
    try:
        size = image_size(path)
    except DataError:
        size = None
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape == (*(size or pixels.shape[:2]), 3), f"size {size}, read {pixels.shape}"


def checkpoint_samples() -> list[bytes]:
    weights = {"conv1.weight": torch.ones(2, 3), "bn1.weight": torch.ones(4).half()}
    weights |= {f"layer{k}.0.conv1.weight": torch.ones(1) for k in (1, 2, 3, 4)}
    weights["classificationModel.output.weight"] = torch.ones(18, 1, 1, 1)
    settings = asdict(Checkpoint(ModelConfig(2, depth=18), weights, ("cat", "dog")))
    whole = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    return [
        saved({"version": 1, **settings}),
        saved(weights),
        saved(weights, _use_new_zipfile_serialization=False),
        saved(whole),
        saved(nn.DataParallel(whole)),
        pickle.dumps({"version": 1, "config": {"depth": 18}}, protocol=2),
    ]


PICKLE_WORDS = [
    *(bytes((byte,)) for byte in b"(.02NKMJ}]){QRbsutael\x85\x86\x87\x88\x89\x81hqrj\x94\x93"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n"),
    *(b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._utils\n_rebuild_sparse_tensor\n"),
    *(b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch\nComplexFloatStorage\n"),
    *(b"ccollections\nOrderedDict\n", b"ccollections\nCounter\n", b"cposix\nsystem\n"),
    *(b"ctorch\nTensor\n", b"c_codecs\nencode\n", b"cretinanet.model\nResNet\n"),
    *(b"ctorch.nn.modules.container\nSequential\n", b"cnumpy.core.multiarray\nscalar\n"),
    *(b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"X\x03\0\0\0cpu", b"X\x07\0\0\0storage", b"X\x07\0\0\0version", b"X\x06\0\0\0config"),
    *(b"X\x08\0\0\0min_side", b"X\0\0\0\0", b"_modules", b"_parameters", b"O8", b"V4", b"f4"),
    *(b"K\xff", b"h\0", b"J\xff\xff\xff\x7f", b"J\0\0\0\x80", b"\x8a\x05\0\0\0\0\x7f"),
    *(b"G\x7f\xf0\0\0\0\0\0\0", b"\xff\xff\xff\xff", b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"),
]


def changed_checkpoint(
    rng: random.Random, sample: bytes, others: Sequence[bytes], words: Sequence[bytes]
) -> bytes:
    """The file changed, or the pickle inside a zip that is whole around it."""
    if rng.random() < 0.4 or not sample.startswith(b"PK"):
        return changed(rng, sample, others, words)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sample)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = changed(rng, content, [content], words)
            new.writestr(name, content)
    return stream.getvalue()


def read_checkpoint(path: Path) -> None:
    with contextlib.suppress(DataError):
        read_weights(path)
    found = load_checkpoint(path)
    with torch.device("meta"):
        expected = RetinaNet(found.config).state_dict()
    assert all(isinstance(name, str) for name in found.class_names)
    assert len(found.class_names) in (0, found.config.num_classes)
    assert 0 < found.min_side <= found.max_side
    for name, value in found.weights.items():
        assert value.shape == expected[name].shape or not value.dim(), name
        assert value.untyped_storage().nbytes() >= value.nbytes, name
        assert value.float().isfinite().all(), name


def zoo_samples() -> list[bytes]:
    """As detectron2's model zoo: pickles of numpy arrays, of old and new kinds."""
    arrays: dict[str, object] = {"backbone.a": np.ones((2, 3), np.float32), "b": np.arange(4)}
    content = {"model": {**arrays, "c": np.asfortranarray(np.ones((2, 2)))}, "__author__": "me"}
    return [pickle.dumps(content, protocol) for protocol in (0, 2, 4)]


def read_zoo(path: Path) -> None:
    load_foreign(path, "detectron2")


def model_samples() -> list[bytes]:
    """A whole small model, a byte a number."""
    with torch.device("meta"):
        shapes = RetinaNet(ModelConfig(2, depth=18)).state_dict()
    weights = {name: torch.zeros(v.shape, dtype=torch.uint8) for name, v in shapes.items()}
    settings = asdict(Checkpoint(ModelConfig(2, depth=18), weights, ("cat", "dog")))
    return [saved({"version": 1, **settings}), saved(weights)]


def of_folder(open_input: Callable[[Path], fuzz_formats.Read]) -> Callable[[Path], None]:
    """Checks a labelled folder that holds the input."""
    return lambda path: check_data_set(open_input(path))


TARGETS = {
    "csv": Target("rows.csv", csv_samples, CSV_WORDS, read_csv),
    "classes": Target("classes.csv", class_samples, CSV_WORDS, read_class_file),
    "coco": Target("instances.json", coco_samples, JSON_WORDS, read_coco_set),
    "yolo": Target(
        "picture.txt",
        fuzz_formats.yolo_label_samples,
        fuzz_formats.NUMBER_WORDS,
        of_folder(fuzz_formats.yolo_labels),
    ),
    "yaml": Target(
        "data.yaml",
        fuzz_formats.yaml_samples,
        fuzz_formats.YAML_WORDS,
        of_folder(fuzz_formats.yolo_yaml),
    ),
    "voc": Target(
        "picture.xml", fuzz_formats.voc_samples, fuzz_formats.XML_WORDS, of_folder(fuzz_formats.voc)
    ),
    "labelme": Target(
        "picture.json",
        fuzz_formats.labelme_samples,
        JSON_WORDS + fuzz_formats.NUMBER_WORDS,
        of_folder(fuzz_formats.labelme),
    ),
    "image": Target("picture.jpg", image_samples, IMAGE_WORDS, read_any_image),
    "checkpoint": Target(
        "small.pt", checkpoint_samples, PICKLE_WORDS, read_checkpoint, changed_checkpoint
    ),
    "zoo": Target("zoo.pkl", zoo_samples, PICKLE_WORDS, read_zoo),
    "model": Target("whole.pt", model_samples, PICKLE_WORDS, read_checkpoint, changed_checkpoint),
}
