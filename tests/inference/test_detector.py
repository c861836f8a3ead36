"""The detector in Python: every kind of image in, results out, one by one and as a stream."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from skimage import data
from torchvision.transforms import Compose

import retinanet
from retinanet.data.transforms import Normalizer, Resizer
from retinanet.errors import DataError
from retinanet.inference.image_folder import ImageFiles
from retinanet.inference.prediction import predict
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import DetectionLimits
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.support.helpers import take_ruled_weights

pytestmark = pytest.mark.usefixtures("narrow")

NAMES = ("cat", "dog", "emu")
THRESHOLD = 0.125  # the weights by rule are never sure


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A checkpoint whose model finds things in any picture."""
    model = RetinaNet(ModelConfig(3, depth=18))
    take_ruled_weights(model)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    checkpoint = Checkpoint(model.config, model.state_dict(), NAMES, min_side=64, max_side=96)
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="module")
def detector(file):
    return retinanet.load(file, "cpu", score_threshold=THRESHOLD)


@pytest.fixture
def photo(tmp_path):
    """A photograph of 451 x 300 pixels (width x height)."""
    path = tmp_path / "chelsea.png"
    Image.fromarray(data.chelsea()).save(path)
    return path


def assert_same(result, other):
    assert len(result) > 0
    for column in ("boxes", "scores", "labels", "names"):
        np.testing.assert_array_equal(getattr(result, column), getattr(other, column))


def test_it_finds_what_prediction_finds(detector, photo) -> None:
    dataset = ImageFiles(photo, Compose([Resizer(64, 96), Normalizer()]))
    (expected,) = predict(detector.model, dataset, DetectionLimits(THRESHOLD))
    result = detector(photo)
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.boxes, expected.boxes)
    assert result.names.tolist() == [NAMES[label] for label in expected.labels]
    assert len(result) == len(expected.scores) > 0
    assert result.boxes[:, 2].max() > 96  # pixels of the file, not of the network's input


def test_a_stream_gives_results_as_they_come(detector, photo) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield photo if taken % 3 else data.rocket()

    expected = {True: detector(photo), False: detector(data.rocket())}
    results = detector.stream(endless(), workers=2)
    for k in range(1, 41):
        image, result = next(results)
        assert (image is photo) == bool(k % 3)
        assert result.labels.tolist() == expected[image is photo].labels.tolist()
        np.testing.assert_allclose(result.boxes, expected[image is photo].boxes, atol=1e-2)
    # Batches of 4 wait for 32 more at most, and 2 threads load 5 ahead.
    assert taken <= 40 + 32 + 5 + 1
    results.close()


def test_a_stream_holds_no_more_samples_than_its_window(detector, monkeypatch) -> None:
    held, most = weakref.WeakSet(), 0

    class Counted(Normalizer):
        def __call__(self, sample):
            nonlocal most
            out = super().__call__(sample)
            held.add(out["img"])
            most = max(most, len(held))
            return out

    monkeypatch.setattr(detector, "transform", Compose([Resizer(64, 96), Counted()]))
    shapes = [(64, 64), (64, 96), (96, 64)]
    images = (np.zeros((*shapes[k * k % 3], 3), np.uint8) for k in range(500))
    assert sum(1 for _ in detector.stream(images)) == 500
    assert most <= 8 * detector.batch_size + 3


def test_what_cannot_be_read_stops_a_stream_or_is_skipped(detector, photo, tmp_path) -> None:
    paths = [photo, tmp_path / "none.jpg", photo]
    stream = detector.stream(paths)
    assert next(stream)[0] is photo
    with pytest.raises(DataError, match=r"none\.jpg: No such file"):
        next(stream)
    with pytest.warns(UserWarning, match=r"skipped: .*none\.jpg: No such file"):
        results = list(detector.stream(paths, on_bad_image="skip"))
    assert [image for image, _ in results] == [photo, photo]


def test_a_generator_is_for_stream(detector, photo) -> None:
    with pytest.raises(DataError, match=r"builtins.generator; .*pass what gives images to stream$"):
        detector(path for path in [photo])


def test_supervision_in_one_line(detector, photo) -> None:
    supervision = pytest.importorskip("supervision")
    result = detector(photo)
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, result.boxes)
    np.testing.assert_array_equal(detections.confidence, result.scores)
    np.testing.assert_array_equal(detections.class_id, result.labels)
    np.testing.assert_array_equal(detections["class_name"], result.names)
    sure = detections[detections.confidence > np.median(result.scores)]
    assert len(sure) == len(result) // 2
    boxes = [record["bbox"] for record in result.to_coco(image_id=1)]
    np.testing.assert_allclose(boxes, supervision.xyxy_to_xywh(detections.xyxy), rtol=1e-6)
    labels = [str(name) for name in detections["class_name"]]
    drawn = supervision.LabelAnnotator().annotate(data.chelsea().copy(), detections, labels=labels)
    assert (drawn != data.chelsea()).any()


def test_coco_results_in_one_line(detector, photo) -> None:
    result = detector(photo)
    records = result.to_coco(image_id=7)
    assert len(records) == len(result)
    x1, y1, x2, y2 = result.boxes[0].tolist()
    assert records[0] == {
        "image_id": 7,
        "category_id": result.labels[0] + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": result.scores[0].item(),
    }
    assert json.loads(json.dumps(records)) == records
    truth = COCO()
    truth.dataset = {"info": {}, "images": [{"id": 7}], "categories": [], "annotations": []}
    truth.createIndex()
    loaded = truth.loadRes(records).loadAnns(range(1, len(records) + 1))
    assert [found["bbox"] for found in loaded] == [record["bbox"] for record in records]
    ids = {"cat": 17, "dog": 18, "emu": 90}
    found = {record["category_id"] for record in result.to_coco(7, ids)}
    assert found == {ids[name] for name in result.names}


def test_columns_are_what_supervision_takes(detector, photo) -> None:
    # supervision.Detections(xyxy=..., confidence=..., class_id=...) wants just these.
    result = detector(photo)
    D = len(result)
    assert result.boxes.shape == (D, 4)
    assert (result.boxes.dtype, result.scores.dtype, result.labels.dtype) == (
        np.float32, np.float32, np.int64,
    )  # fmt: skip
    sure = result.scores > np.median(result.scores)
    assert len(result.boxes[sure]) == len(result.names[sure]) == D // 2


def test_nothing_found_has_the_same_shapes(file, photo) -> None:
    result = retinanet.load(file, "cpu", score_threshold=0.99)(photo)
    assert len(result) == 0
    assert [column.shape for column in vars(result).values()] == [(0, 4), (0,), (0,), (0,)]


@pytest.mark.parametrize(
    "given",
    [
        str,  # a path
        Image.open,
        lambda path: np.asarray(Image.open(path)),
        lambda path: np.asarray(Image.open(path))[:, ::-1][:, ::-1],  # strides below zero
        lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1),
    ],
    ids=["str", "PIL", "numpy", "numpy view", "tensor"],
)
def test_every_kind_of_image_gives_the_same(detector, photo, given) -> None:
    assert_same(detector(given(photo)), detector(photo))


def test_grey_images_of_every_kind(detector) -> None:
    grey = data.camera()[:200, :300]
    expected = detector(np.stack([grey] * 3, axis=-1))
    for image in (
        grey,
        grey[..., None],
        torch.from_numpy(grey.copy())[None],
        Image.fromarray(grey),
    ):
        assert_same(detector(image), expected)


def test_a_list_gives_a_list_in_its_order(detector, photo) -> None:
    images = [photo, data.rocket(), np.asarray(Image.open(photo)), data.coffee()]
    results = detector(images)
    assert isinstance(results, list)
    assert_same(results[0], results[2])
    for image, result in zip(images, results, strict=True):
        alone = detector(image)
        assert alone.labels.tolist() == result.labels.tolist()
        np.testing.assert_allclose(result.boxes, alone.boxes, atol=1e-2)
    assert detector([]) == []
    assert [type(result).__name__ for result in detector((photo,))] == ["Result"]


def test_files_are_upright_and_images_in_memory_as_they_lie(detector, tmp_path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(data.chelsea()).save(path, exif=exif, quality=95)
    assert_same(detector(path), detector(np.rot90(np.asarray(Image.open(path)), -1)))
    assert_same(detector(Image.open(path)), detector(np.asarray(Image.open(path))))


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((8, 8, 3)), r"numpy.ndarray of float64 \[8, 8, 3\]"),
        (np.zeros((8, 8, 4), np.uint8), r"numpy.ndarray of uint8 \[8, 8, 4\]"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"numpy.ndarray of uint8 \[2, 8, 8, 3\]"),
        (np.zeros((0, 8, 3), np.uint8), r"numpy.ndarray of uint8 \[0, 8, 3\]"),
        (torch.zeros(3, 8, 8), r"torch.Tensor of float32 \[3, 8, 8\]"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"torch.Tensor of uint8 \[8, 8, 3\]"),
        (torch.zeros((), dtype=torch.uint8), r"torch.Tensor of uint8 \[\]"),
        (Image.new("I;16", (8, 8)), r"PIL.Image.Image of mode I;16"),
        ({"img": 1}, "builtins.dict"),
        (None, "builtins.NoneType"),
    ],
)
def test_anything_else_is_refused_by_name(detector, image, found) -> None:
    with pytest.raises(DataError, match=rf"^image 0: {found}; expected a path, a PIL image"):
        detector(image)
    with pytest.raises(DataError, match=rf"^image 1: {found}; expected"):
        detector([np.zeros((8, 8), np.uint8), image])


def test_bad_files_are_named(file, detector, tmp_path) -> None:
    with pytest.raises(DataError, match=r"no\.jpg: No such file"):
        detector(tmp_path / "no.jpg")
    with pytest.raises(DataError, match="a folder; expected an image file"):
        detector([str(tmp_path)])
    with pytest.raises(DataError, match=r"no\.pt: there is no such file"):
        retinanet.load(tmp_path / "no.pt")
    with pytest.raises(DataError, match="--device nonsense"):
        retinanet.load(file, "nonsense")


def test_limits_are_obeyed_and_may_be_changed(file, photo) -> None:
    detector = retinanet.load(file, "cpu", score_threshold=THRESHOLD, max_detections=3)
    assert len(detector(photo)) == 3
    detector.max_detections = None
    everything = detector(photo)
    detector.score_threshold = float(np.median(everything.scores))
    assert 0 < len(detector(photo)) < len(everything)
    detector.score_threshold = THRESHOLD
    detector.class_agnostic_nms = True
    assert 0 < len(detector(photo)) < len(everything)
    detector.nms_threshold = 0.99
    assert len(detector(photo)) > len(everything)


def test_a_model_without_names_numbers_its_classes(file, photo, tmp_path) -> None:
    content = torch.load(file, weights_only=True)
    torch.save(content["weights"], tmp_path / "bare.pt")
    result = retinanet.load(tmp_path / "bare.pt", "cpu", score_threshold=THRESHOLD)(photo)
    assert set(result.names.tolist()) <= {"class 0", "class 1", "class 2"}
    assert result.names[0] == f"class {result.labels[0]}"


def test_the_package_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'retinanet' has no attribute 'save'"):
        retinanet.save  # noqa: B018


def test_the_files_thresholds_are_used_unless_another_is_given(file, photo, tmp_path) -> None:
    everything = retinanet.load(file, "cpu", score_threshold=THRESHOLD, max_detections=None)(photo)
    middle = float(np.median(everything.scores))
    own = tuple(middle if label == 0 else 0.999 for label in range(len(NAMES)))
    path = tmp_path / "own.pt"
    save_checkpoint(path, replace(load_checkpoint(file), thresholds=own, thresholds_epoch=3))
    detector = retinanet.load(path, "cpu", max_detections=None)
    assert detector.score_threshold == own
    found = detector(photo)
    assert len(found) == ((everything.labels == 0) & (everything.scores > middle)).sum() > 0
    assert set(found.labels) == {0}
    assert "best on the validation data after epoch 3: " in repr(detector)
    detector.score_threshold = 0.7
    assert repr(detector).endswith(". Score threshold 0.7.>")
    assert retinanet.load(path, "cpu", score_threshold=0.7).score_threshold == 0.7
    assert retinanet.load(file, "cpu").score_threshold == 0.5
