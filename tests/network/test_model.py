"""The whole network: the original's values, its beginnings, training and evaluation mode."""

import json
import math
import zlib

import pytest
import torch
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from retinanet import model as models
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet, build_model, resnet18
from retinanet.postprocess import DetectionLimits
from retinanet.weights.projects import SOURCES
from tests.support.helpers import (
    GOLDEN,
    NoHostSync,
    golden_arrays,
    ruled_images,
    take_ruled_weights,
    worst_match,
)
from tests.support.narrow import narrow_network

DEPTHS = (18, 34, 50, 101, 152)
ANNOTATIONS = torch.tensor([[[8.0, 8, 40, 40, 1], [30, 20, 90, 60, 2]], [[-1.0] * 5] * 2])


@pytest.fixture(scope="module")
def ruled() -> RetinaNet:
    """ResNet-18 for 3 classes whose weights find hundreds of things in noise. Only to be read."""
    model = resnet18(num_classes=3)
    take_ruled_weights(model)
    return model.eval()


@pytest.fixture
def fresh() -> RetinaNet:
    """ResNet-18 for 3 classes as it begins, in training mode."""
    torch.manual_seed(0)
    return resnet18(num_classes=3)


# ---- the original's values ----


@pytest.mark.parametrize("depth", DEPTHS)
def test_state_dict_has_the_originals_keys_and_shapes(depth) -> None:
    K = int(golden_arrays(f"model_resnet{depth}.npz")["num_classes"])
    with torch.device("meta"):
        model = getattr(models, f"resnet{depth}")(K)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    expected = json.loads((GOLDEN / "state_dict_keys.json").read_text())[str(depth)]
    if "crc32" in expected:
        lines = "\n".join(f"{key}{tuple(shape)}" for key, shape in shapes.items())
        assert len(shapes) == expected["count"]
        assert zlib.crc32(lines.encode()) == expected["crc32"]
    else:
        assert shapes == expected
        assert list(shapes) == list(expected)


@pytest.mark.parametrize("depth", DEPTHS)
def test_losses_gradients_and_detections_of_the_original(depth) -> None:
    golden = golden_arrays(f"model_resnet{depth}.npz")
    seed, H, W, K = (int(golden[key]) for key in ("image_seed", "height", "width", "num_classes"))
    model = getattr(models, f"resnet{depth}")(K)
    take_ruled_weights(model)
    images = ruled_images(seed, H, W)

    classification, regression = model([images, golden["annotations"]])
    torch.testing.assert_close(classification, golden["classification_loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(regression, golden["regression_loss"], rtol=1e-4, atol=0)

    (classification + regression).backward()
    norms = json.loads((GOLDEN / "gradient_norms.json").read_text())[str(depth)]
    parameters = dict(model.named_parameters())
    found = {key: parameters[key].grad.norm().item() for key in norms}
    assert found == pytest.approx(norms, rel=1e-4)

    model.eval()
    with torch.no_grad():
        detections = model(images[:1])
    scores, labels, boxes = (golden[f"top_{part}"] for part in ("scores", "labels", "boxes"))
    assert len(detections[0]) == int(golden["num_detections"])
    torch.testing.assert_close(detections[0][: len(scores)], scores, rtol=0, atol=1e-4)
    assert worst_match(detections, (scores, labels, boxes)) < 1e-3


# ---- settings and beginnings ----


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="depth is 20; expected one of 18, 34, 50, 101, 152"):
        ModelConfig(num_classes=3, depth=20)
    with pytest.raises(ValueError, match="num_classes is 0; expected at least 1"):
        ModelConfig(num_classes=0)


def test_other_anchors_change_the_heads() -> None:
    # 2 ratios x 1 scale x 5 classes = 10 outputs, x 4 deltas = 8
    config = ModelConfig(5, 18, anchor_ratios=(0.5, 2.0), anchor_scales=(1.0,))
    model = RetinaNet(config)
    assert model.classificationModel.output.weight.shape == (10, 256, 3, 3)
    assert model.regressionModel.output.weight.shape == (8, 256, 3, 3)
    assert torch.isfinite(model([torch.randn(2, 3, 64, 64), ANNOTATIONS])[0])


def test_a_smaller_pyramid_and_shorter_towers() -> None:
    model = RetinaNet(ModelConfig(num_classes=2, depth=18, channels=64, head_convs=2)).eval()
    towers = [name for name in model.state_dict() if name.startswith("classificationModel.conv")]
    assert len(towers) == 2 * 2  # weight and bias of each
    assert model.fpn.P3_2.weight.shape == (64, 64, 3, 3)
    with torch.no_grad():
        logits, deltas = model.head_outputs(torch.zeros(1, 3, 64, 64))
    # 64 px: 8x8 + 4x4 + 2x2 + 1 + 1 = 86 cells of 9 anchors.
    assert logits.shape == (1, 86 * 9, 2)
    assert deltas.shape == (1, 86 * 9, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"channels": 48, "group_norm": True}, "channels is 48; .* a multiple of 32"),
        ({"head_convs": -1}, "head_convs is -1; expected at least 0"),
    ],
)
def test_sizes_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(num_classes=2, **settings)


def test_a_grid_of_anchors_that_is_not_known() -> None:
    with pytest.raises(
        ValueError, match="anchor_grid is edge; expected one of center, corner, tor"
    ):
        ModelConfig(num_classes=3, anchor_grid="edge")


@pytest.mark.parametrize("source", SOURCES)
def test_networks_of_other_projects_train(source) -> None:
    """The loss of a batch falls, and the gradient reaches every weight."""
    torch.manual_seed(0)
    depth = 50 if source == "detectron2" else 18  # whose stride sits where only a ResNet-50 has it
    with narrow_network():
        model = RetinaNet(ModelConfig(3, depth, **SOURCES[source].settings))
    batch = [torch.randn(2, 3, 64, 96), ANNOTATIONS]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = sum(model(batch))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] < math.inf
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_convolutions_begin_he_normal_and_outputs_at_the_prior(fresh) -> None:
    outputs = (fresh.classificationModel.output, fresh.regressionModel.output)
    for name, conv in fresh.named_modules():
        if not isinstance(conv, nn.Conv2d) or conv in outputs:
            continue
        weight = conv.weight
        std = math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))  # fan_out
        # Five deviations of what a sample of n normal numbers has
        n = weight.numel()
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n)), name
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(n), name
        if conv.bias is not None:  # as PyTorch makes them: uniform, up to 1 / sqrt(fan_in)
            bound = 1 / math.sqrt(weight[0].numel())
            assert 0.9 * bound < conv.bias.abs().max().item() <= bound, name
    assert not any(output.weight.any() for output in outputs)
    assert not outputs[1].bias.any()
    # sigmoid(bias) = 0.01
    torch.testing.assert_close(outputs[0].bias.sigmoid(), torch.full((27,), 0.01))


def test_pretrained_takes_the_backbone_and_only_that(monkeypatch, ruled) -> None:
    weights = {
        k: v for k, v in ruled.state_dict().items() if not k.startswith(("fpn", "reg", "cl"))
    }
    weights["fc.bias"] = torch.zeros(1000)
    monkeypatch.setattr(models, "imagenet_weights", lambda depth: weights)
    model = build_model(ModelConfig(num_classes=3, depth=18), pretrained=True)
    taken = model.state_dict()
    assert all(torch.equal(taken[key], weights[key]) for key in weights if key != "fc.bias")
    assert not taken["classificationModel.output.weight"].any()


def test_pretrained_that_is_not_to_be_had_is_an_error(monkeypatch) -> None:
    def fail(depth):
        raise DataError(f"no weights of depth {depth}")

    monkeypatch.setattr(models, "imagenet_weights", fail)
    with pytest.raises(DataError, match="no weights of depth 34"):
        models.resnet34(num_classes=3, pretrained=True)


# ---- training mode ----


def test_training_gives_two_losses_of_shape_1(fresh) -> None:
    losses = fresh([torch.randn(2, 3, 64, 96), ANNOTATIONS])
    assert [loss.shape for loss in losses] == [(1,), (1,)]
    assert all(torch.isfinite(loss) and loss.requires_grad for loss in losses)


def test_frozen_batch_norm_learns_gain_and_shift_but_no_statistics(fresh) -> None:
    fresh.train()
    assert fresh.bn1.training  # what train() undoes
    fresh.freeze_bn()
    norms = [module for module in fresh.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert not any(norm.training for norm in norms)
    assert fresh.training
    assert fresh.layer1.training
    before = {key: value.clone() for key, value in fresh.named_buffers()}
    nn.init.normal_(fresh.classificationModel.output.weight, std=0.01)  # 0 passes no gradient
    sum(fresh([torch.randn(2, 3, 64, 64), ANNOTATIONS])).backward()
    assert all(torch.equal(value, before[key]) for key, value in fresh.named_buffers())
    assert all(norm.weight.grad.any() and norm.bias.grad.any() for norm in norms)


@pytest.mark.parametrize("count", range(6))
def test_the_layers_that_learn_are_torchvisions(count: int) -> None:
    model = resnet18(num_classes=2)
    model.train_layers(count)
    theirs = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=count
    ).body
    learn = {name for name, value in model.named_parameters() if value.requires_grad}
    heads = {name for name in learn if name.startswith(("fpn", "regression", "classification"))}
    assert learn - heads == {
        name for name, value in theirs.named_parameters() if value.requires_grad
    }
    assert heads == {
        name for name, _ in model.named_parameters() if "Model" in name or "fpn" in name
    }


def test_a_step_uses_every_parameter_even_without_boxes(fresh) -> None:
    sum(fresh([torch.randn(1, 3, 64, 64), ANNOTATIONS[1:]])).backward()
    assert [key for key, value in fresh.named_parameters() if value.grad is None] == []


def test_the_wrapper_as_the_originals_script_uses_it(fresh) -> None:
    retinanet = nn.DataParallel(fresh)
    retinanet.training = True
    retinanet.train()
    retinanet.module.freeze_bn()
    losses = retinanet([torch.randn(2, 3, 64, 64), ANNOTATIONS])
    assert [loss.mean().shape for loss in losses] == [(), ()]
    retinanet.training = False
    retinanet.eval()
    with torch.no_grad():
        scores, labels, boxes = retinanet(torch.randn(1, 3, 64, 64))
    assert (scores.shape, labels.shape, boxes.shape) == ((0,), (0,), (0, 4))  # 0.01 < 0.05


def test_no_wait_in_forward_and_backward(fresh) -> None:
    images = torch.randn(2, 3, 64, 96)
    fresh([images, ANNOTATIONS])  # what is made once per size may wait once
    with NoHostSync():
        sum(fresh([images, ANNOTATIONS])).backward()


# ---- evaluation mode ----


def test_evaluation_gives_three_sorted_tensors(ruled) -> None:
    with torch.no_grad():
        scores, labels, boxes = ruled(torch.randn(1, 3, 96, 128))
    assert len(scores) > 100  # no limit
    assert scores.shape == labels.shape == boxes.shape[:1]
    assert (scores.diff() <= 0).all()
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) <= {0, 1, 2}
    # clipped to the input, 96 high and 128 wide
    assert boxes.min() == 0
    assert boxes[:, 2:].amax(dim=0).tolist() == [128, 96]


def test_a_batch_in_evaluation_mode_is_sent_to_detect(ruled) -> None:
    with pytest.raises(ValueError, match=r"one image .* got 2;.* use model\.detect"):
        ruled(torch.zeros(2, 3, 64, 64))


def test_whole_numbers_are_refused(ruled) -> None:
    with pytest.raises(ValueError, match=r"images are torch\.uint8; expected normalised floats"):
        ruled(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (100, 75), (33, 31)])
def test_any_size_has_a_prediction_for_each_anchor(ruled, size) -> None:
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        logits, deltas = ruled.head_outputs(images)
    N = ruled.anchors(images).shape[1]
    assert (logits.shape, deltas.shape) == ((2, N, 3), (2, N, 4))
    assert torch.isfinite(ruled.loss(logits, deltas, ruled.anchors(images), ANNOTATIONS)[0])


def test_a_batch_gives_each_image_what_it_gets_alone(ruled) -> None:
    torch.manual_seed(0)
    images, sizes = torch.zeros(3, 3, 96, 128), [(96, 128), (90, 100), (50, 128)]
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, :height, :width].normal_()
    everything = DetectionLimits(candidates_per_level=None, max_detections=None)
    with torch.no_grad():
        together = ruled.detect(images, sizes, everything)
        for i, (height, width) in enumerate(sizes):
            alone = ruled.detect(images[i : i + 1], sizes[i : i + 1], everything)[0]
            assert len(alone.scores) == len(together[i].scores) > 50
            assert worst_match(together[i], alone) < 1e-4
            # clipped to the picture, not to its padding
            assert together[i].boxes[:, 2:].amax(dim=0).tolist() == [width, height]


def test_detect_hands_its_limits_on(ruled) -> None:
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        (default,) = ruled.detect(images, [(96, 128)])
        (few,) = ruled.detect(images, [(96, 128)], DetectionLimits(max_detections=5))
        (sure,) = ruled.detect(images, [(96, 128)], DetectionLimits(0.2, max_detections=None))
        (apart,) = ruled.detect(
            images, [(96, 128)], DetectionLimits(nms_threshold=0.0, max_detections=None)
        )
        (narrow,) = ruled.detect(images, [(96, 128)], DetectionLimits(candidates_per_level=1))
        every = ruled(images)
    assert len(default.scores) == 100
    assert torch.equal(few.boxes, default.boxes[:5])
    assert len(sure.scores) == int((every[0] > 0.2).sum())
    assert len(apart.scores) < len(every[0])
    assert len(narrow.scores) <= 5  # one of each level


def test_gradients_in_bf16_are_finite_on_a_map_one_cell_wide() -> None:
    """OneDNN's bf16 weight gradient was NaN where P6, 2 x 1 cells here, goes into P7."""
    torch.manual_seed(0)
    model = resnet18(2).to(memory_format=torch.channels_last)
    torch.nn.init.normal_(model.classificationModel.output.weight, std=0.01)
    model.autocast = torch.bfloat16
    model.train()
    model.freeze_bn()
    boxes = torch.tensor([[[8.0, 8, 40, 40, 1]], [[10.0, 30, 60, 90, 0]]])
    sum(model([torch.randn(2, 3, 96, 64), boxes])).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
