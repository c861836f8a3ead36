"""Detectors of other projects, converted: held to the figures that their own code printed."""

import json
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.ops import batched_nms

from retinanet.anchors import level_shapes
from retinanet.boxes import clip_boxes, decode_boxes
from retinanet.data.transforms import Normalizer
from retinanet.model import RetinaNet
from retinanet.postprocess import DetectionLimits, Detections, best_entries
from retinanet.weights.conversion import COCO_IDS, convert, state_dict, to_torchvision
from retinanet.weights.projects import SOURCES
from tests.support.helpers import golden_arrays, ruled_array
from tests.support.paths import GOLDEN

# ---- the weights and the images that the figures are for ----

RESNET_NORM = r"(bn1|layer\d\.\d+\.(bn\d|downsample\.1))\."


class Reference(NamedTuple):
    """What a file of figures was printed by: project, names of norm layers, gain of the outputs."""

    source: str
    norm: str
    gain: int = 4


REFERENCES = {
    "torchvision_v1": Reference("torchvision", RESNET_NORM),
    "torchvision_v2": Reference(
        "torchvision_v2", RESNET_NORM + r"|^head\.\w+\.conv\.\d\.1\.", gain=1
    ),
    "detectron2_r50": Reference("detectron2", r"\.norm\."),
    "mmdet_r18": Reference("mmdetection", RESNET_NORM),
    "mmdet_r50": Reference("mmdetection", RESNET_NORM),
    "odtk_r18": Reference("odtk", r"\.features\." + RESNET_NORM),
    "odtk_r50": Reference("odtk", r"\.features\." + RESNET_NORM),
}
IMAGES = {"a": (101, 256, 128), "b": (102, 96, 160), "c": (103, 100, 205)}  # seed, height, width


def ruled_weights(name: str) -> dict[str, Tensor]:
    """A project's state dict by the rule of golden/foreign/README.md."""
    source, norm, gain = REFERENCES[name]
    names = SOURCES[source].module_names()
    logits, boxes = names["classificationModel.output"], names["regressionModel.output"]
    shapes = json.loads((GOLDEN / "foreign" / f"{name}.keys.json").read_text())
    arrays = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            continue
        array = ruled_array(key, shape, norm)
        if key in (f"{logits}.weight", f"{boxes}.weight"):
            array *= gain
        elif key == f"{logits}.bias":
            array -= 2
            if source.startswith("torchvision"):
                array.reshape(9, 91)[:, [i for i in range(91) if i not in COCO_IDS]] -= 20
        elif key == "backbone.bottom_up.stem.conv1.weight":
            array /= 64
        arrays[key] = array
    for key, array in arrays.items():
        if key.endswith("running_var"):
            array[::16] *= 1e-4
            arrays[key.removesuffix("running_var") + "weight"][::16] *= 1e-2
    return {key: torch.from_numpy(array.astype(np.float32)) for key, array in arrays.items()}


def image_pixels(case: str) -> Tensor:
    """[H, W, 3] uint8."""
    seed, height, width = IMAGES[case]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return torch.from_numpy(pixels.astype(np.uint8))


class Converted:
    """A project's model as ours, with what its own code printed."""

    def __init__(self, name: str) -> None:
        self.source = REFERENCES[name].source
        self.golden = golden_arrays(f"foreign/{name}.npz")
        self.theirs = ruled_weights(name)
        self.ours = convert(state_dict(self.theirs, self.source, name), self.source, name)
        self.model = RetinaNet(self.ours.config).eval()
        self.model.load_state_dict(self.ours.weights)

    def inputs(self, case: str) -> Tensor:
        """The image, normalised and padded as the project pads it, [1, 3, H, W]."""
        sample = Normalizer()({"img": image_pixels(case), "annot": torch.zeros(0, 5)})
        image = sample["img"].permute(2, 0, 1)
        padded = torch.zeros(1, 3, *self.golden[f"{case}_input_size"].tolist())
        padded[0, :, : image.shape[1], : image.shape[2]] = image
        return padded

    @cache  # noqa: B019 (a handful of images, gone with the tests)
    def predict(self, case: str) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, K], deltas [N, 4] and anchors [N, 4] of a case."""
        images = self.inputs(case)
        with torch.no_grad():
            logits, deltas = self.model.head_outputs(images)
        return logits[0], deltas[0], self.model.anchors(images)[0]

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Unclipped boxes, in the source's notation."""
        return self.noted(decode_boxes(anchors, deltas, self.model.config.log_ratio_limits))

    def noted(self, boxes: Tensor) -> Tensor:
        """ODTK says the last pixel inside a box where we say its edge."""
        return boxes - torch.tensor([0.0, 0, 1, 1]) if self.source == "odtk" else boxes

    def label(self, labels: Tensor) -> Tensor:
        """The source's labels as ours."""
        if self.source.startswith("torchvision"):
            return torch.tensor([COCO_IDS.index(label) for label in labels.tolist()])
        return labels.long()

    def rows(self, group: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Where the anchors of a group of pairs are among all of ours."""
        order = SOURCES[self.source].anchor_order
        shapes = level_shapes(*size)
        starts = np.cumsum([0, *(9 * rows * columns for rows, columns in shapes)])
        places = zip(*(group[key].tolist() for key in ("level", "y", "x", "anchor")), strict=True)
        return torch.tensor(
            [
                starts[level - 3] + 9 * (y * shapes[level - 3][1] + x) + order.index(anchor)
                for level, y, x, anchor in places
            ]
        )

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value
            for key, value in self.golden.items()
            if key.startswith(prefix)
        }


@pytest.fixture(scope="module", params=REFERENCES)
def converted(request) -> Converted:
    return Converted(request.param)


# ---- our network says what theirs says ----


@pytest.mark.parametrize("case", IMAGES)
def test_probabilities_and_boxes_of_the_source(converted, case) -> None:
    logits, deltas, anchors = converted.predict(case)
    size = tuple(converted.golden[f"{case}_input_size"].tolist())
    assert level_shapes(*size) == [tuple(g) for g in converted.golden[f"{case}_grid"].tolist()]
    boxes = converted.decode(anchors, deltas)
    for name in ("top", "level", "sample"):
        group = converted.group(f"{case}_{name}_")
        rows = converted.rows(group, size)
        found = logits[rows, converted.label(group["label"])].sigmoid()
        torch.testing.assert_close(found, group["prob"], rtol=1e-4, atol=0)
        torch.testing.assert_close(boxes[rows], group["box"], rtol=0, atol=0.02)


def test_boxes_that_grow_and_shrink_without_measure(converted) -> None:
    """Which of the two exponents is bounded, and where."""
    logits, deltas, anchors = converted.predict("a")
    order = SOURCES[converted.source].anchor_order
    moved = deltas.reshape(-1, 9, 4).clone()
    moved[:, order.index(4), 2] += 5 / 0.2
    moved[:, order.index(5), 3] -= 5 / 0.2
    group = converted.group("wide_")
    rows = converted.rows(group, (256, 128))
    boxes = converted.decode(anchors, moved.reshape(-1, 4))
    found = logits[rows, converted.label(group["label"])].sigmoid()
    torch.testing.assert_close(found, group["prob"], rtol=1e-4, atol=0)
    torch.testing.assert_close(boxes[rows], group["box"], rtol=0, atol=0.02)


def found_again(expected: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> int:
    """How many of the expected detections are among those found; scores lie close together."""
    count = 0
    for score, label, box in zip(*expected, strict=True):
        near = ((found[0] - score).abs() < 2e-5) & ((found[2] - box).abs().amax(dim=1) < 0.01)
        count += int((near & (found[1] == label)).any())
    return count


def candidates(converted: Converted, case: str) -> Detections:
    """All that may be suppressed, unclipped: the 1000 best pairs of each level above 0.05."""
    logits, deltas, anchors = converted.predict(case)
    size = converted.golden[f"{case}_input_size"].tolist()
    lengths = [9 * rows * columns for rows, columns in level_shapes(*size)]
    rows, labels = [], []
    for start, level in zip(np.cumsum([0, *lengths]), logits.split(lengths), strict=False):
        values, (row,), (label,) = best_entries(level[None], 1000)
        above = values[0].sigmoid() > 0.05
        rows.append(row[above] + int(start))
        labels.append(label[above])
    row, label = torch.cat(rows), torch.cat(labels)
    boxes = decode_boxes(anchors[row], deltas[row], converted.model.config.log_ratio_limits)
    return Detections(logits[row, label].sigmoid(), label, boxes)


def clip(found: Detections, height: int, width: int) -> Detections:
    return found._replace(boxes=clip_boxes(found.boxes, height, width))


def clip_and_drop_empty(found: Detections, height: int, width: int) -> Detections:
    found = clip(found, height, width)
    whole = (found.boxes[:, 2:] > found.boxes[:, :2]).all(dim=1)
    return found.only(whole)


def clip_but_for_a_pixel(found: Detections, height: int, width: int) -> Detections:
    low, high = torch.tensor([0.0, 0, 1, 1]), torch.tensor([width - 1.0, height - 1, width, height])
    return found._replace(boxes=found.boxes.maximum(low).minimum(high))


def as_it_is(found: Detections, height: int, width: int) -> Detections:
    return found


# What a source does to the boxes before suppression, and after it. Ours is what torchvision does.
BORDERS = {
    "torchvision": (clip, as_it_is),
    "torchvision_v2": (clip, as_it_is),
    "detectron2": (as_it_is, clip_and_drop_empty),
    "mmdetection": (clip_and_drop_empty, as_it_is),
    "odtk": (clip_but_for_a_pixel, as_it_is),
}


@pytest.mark.parametrize("case", IMAGES)
def test_final_detections_of_the_source_but_for_boxes_at_the_border(converted, case) -> None:
    like_torchvision = converted.source.startswith("torchvision")
    limit = 300 if like_torchvision else 100
    size = IMAGES[case][1:]
    if converted.source == "odtk":
        size = tuple(converted.golden[f"{case}_input_size"].tolist())
    before, after = BORDERS[converted.source]
    found = before(candidates(converted, case), *size)
    keep = batched_nms(found.boxes, found.scores, found.labels, 0.5)[:limit]
    found = after(found.only(keep), *size)

    expected = converted.group(f"{case}_final_")
    expected = (expected["scores"], converted.label(expected["labels"]), expected["boxes"])
    found = found._replace(boxes=converted.noted(found.boxes))
    assert len(found.scores) == len(expected[0])
    assert found_again(expected, found) == len(found.scores)

    if like_torchvision:
        with torch.no_grad():
            (ours,) = converted.model.detect(
                converted.inputs(case), [size], DetectionLimits(max_detections=limit)
            )
        assert found_again(expected, ours) == len(ours.scores) == limit


# ---- torchvision's own code beside ours, and back ----

BUILDERS = {
    "torchvision": detection.retinanet_resnet50_fpn,
    "torchvision_v2": detection.retinanet_resnet50_fpn_v2,
}


def random_torchvision_model(source: str) -> nn.Module:
    """As its constructor makes one without weights, that finds hundreds of things in noise."""
    torch.manual_seed(0)
    sizes = {"num_classes": 91, "min_size": 75, "max_size": 110}
    model = BUILDERS[source](weights=None, weights_backbone=None, **sizes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average of what it sees
    with torch.no_grad():
        model.backbone(torch.randn(2, 3, 64, 96))
        model.head.classification_head.cls_logits.weight.normal_(0, 0.05)
        bias = model.head.classification_head.cls_logits.bias.fill_(-4)
        bias.view(9, 91)[:, [i for i in range(91) if i not in COCO_IDS]] = -20
        model.head.regression_head.bbox_reg.weight.normal_(0, 0.02)
    return model.eval()


@pytest.mark.parametrize("source", BUILDERS)
def test_torchvisions_own_model_with_random_weights_and_back(source) -> None:
    theirs = random_torchvision_model(source)
    original = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    found = convert(state_dict(original, source, "file"), source, "file")
    ours = RetinaNet(found.config).eval()
    ours.load_state_dict(found.weights)
    image = torch.rand(3, 75, 110)
    with torch.no_grad():
        (expected,) = theirs([image])
        padded, _ = theirs.transform([image])
        (detections,) = ours.detect(
            padded.tensors, [(75, 110)], DetectionLimits(max_detections=300)
        )
    labels = torch.tensor([COCO_IDS.index(label) for label in expected["labels"].tolist()])
    assert found_again((expected["scores"], labels, expected["boxes"]), detections) == 300

    back, K = to_torchvision(found.config, found.weights, found.class_names, "file")
    assert K == 91
    assert back.keys() == original.keys()
    theirs.load_state_dict(back)
    for name, expected in original.items():
        if name.endswith("num_batches_tracked"):  # no weight
            continue
        if name.endswith("cls_logits.weight"):  # zeros in the columns without a class
            expected.view(9, 91, -1)[:, [i for i in range(91) if i not in COCO_IDS]] = 0
        torch.testing.assert_close(back[name], expected, rtol=1e-6, atol=1e-9, msg=name)
