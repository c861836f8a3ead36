"""Both losses: the original's values, the definition, torchvision's; every float type."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou, sigmoid_focal_loss

from retinanet import losses
from retinanet.anchors import image_anchors
from retinanet.boxes import encode_boxes
from retinanet.losses import IGNORED, NEGATIVE, FocalLoss, match_anchors
from tests.support.helpers import NoHostSync, golden_arrays

PADDING = [-1.0] * 5
# Of an image of 64 x 64; the second has an anchor between the thresholds around each box.
BOXES = [
    [[4.0, 4, 36, 40, 2], [20, 10, 60, 64, 0]],
    [[0.0, 0, 64, 64, 1], PADDING],
    [PADDING, PADDING],
]


def batch(seed=0, spread=6.0, dtype=torch.float32):
    """Logits and deltas of three images of 64 x 64 and 3 classes, anchors and `BOXES`."""
    generator = torch.Generator().manual_seed(seed)
    anchors = image_anchors(64, 64).to(dtype)
    logits = torch.randn(3, len(anchors), 3, generator=generator, dtype=torch.float64) * spread
    deltas = torch.randn(3, len(anchors), 4, generator=generator, dtype=torch.float64) * 3
    annotations = torch.tensor(BOXES, dtype=dtype)
    return (
        logits.to(dtype).requires_grad_(),
        deltas.to(dtype).requires_grad_(),
        anchors,
        annotations,
    )


def losses_and_gradients(logits, deltas, anchors, annotations):
    """Both losses and the gradients of their sum by logits and deltas."""
    found = FocalLoss()(logits, deltas, anchors, annotations)
    return *found, *torch.autograd.grad(sum(found).sum(), (logits, deltas))


# ---- matching ----


def test_thresholds_of_iou() -> None:
    box = [0.0, 0, 10, 10, 7]
    anchors = torch.tensor(
        [
            [0.0, 0, 10, 20],  # 100 / 200: 0.5 is positive
            [0.0, 0, 10, 20.1],  # a little less
            [0.0, 0, 10, 25],  # 100 / 250: 0.4 is ignored
            [0.0, 0, 10, 25.1],  # a little less
            [50.0, 50, 60, 60],  # apart
        ]
    )
    labels, boxes = match_anchors(anchors, torch.tensor([[box]]))
    assert labels.tolist() == [[7, IGNORED, IGNORED, NEGATIVE, NEGATIVE]]
    assert boxes[0, 0].tolist() == box[:4]


def test_the_box_of_most_overlap_wins() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    annotations = torch.tensor([[[0.0, 0, 10, 6, 1], [0, 0, 10, 8, 2], [0, 0, 10, 7, 3]]])
    labels, boxes = match_anchors(anchors, annotations)
    assert labels.item() == 2
    assert boxes.tolist() == [[[0, 0, 10, 8]]]


def test_a_box_that_no_anchor_reaches_gets_none() -> None:
    anchors = torch.tensor([[0.0, 0, 32, 32]])
    labels, _ = match_anchors(anchors, torch.tensor([[[0.0, 0, 4, 4, 1]]]))  # 16 / 1024
    assert labels.item() == NEGATIVE


# ---- against references ----


def test_values_and_gradients_of_the_original() -> None:
    golden = golden_arrays("losses.npz")
    logits, deltas = golden["logits"].requires_grad_(), golden["regression"].requires_grad_()
    found = losses_and_gradients(logits, deltas, golden["anchors"], golden["annotations"])
    names = ("classification_loss", "regression_loss", "grad_logits", "grad_regression")
    for name, value in zip(names, found, strict=True):
        atol = 1e-6 * golden[name].abs().max().item()
        torch.testing.assert_close(value, golden[name], rtol=1e-4, atol=atol, msg=name)


def plain_losses(logits, deltas, anchors, annotations):
    """The definition, on probabilities and dense targets, image by image."""
    classification, regression = [], []
    for x, delta, padded in zip(logits, deltas, annotations, strict=True):
        rows = padded[padded[:, 4] != -1]
        target = torch.zeros_like(x)
        positive = torch.zeros(len(anchors), dtype=torch.bool)
        if len(rows):
            iou, best = box_iou(anchors, rows[:, :4]).max(dim=1)
            positive = iou >= 0.5
            target[positive, rows[best[positive], 4].long()] = 1
            target[(iou >= 0.4) & (iou < 0.5)] = -1  # ignored
        p = x.sigmoid().clamp(1e-4, 1 - 1e-4)
        terms = torch.where(
            target == 1, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
        )
        terms = terms * (target != -1)
        classification.append(terms.sum() / max(1, int(positive.sum())))
        if positive.any():
            wanted = encode_boxes(anchors[positive], rows[best[positive], :4])
            error = (delta[positive] - wanted).abs()
            smooth = torch.where(error < 1 / 9, 0.5 * 9 * error**2, error - 0.5 / 9)
            regression.append(smooth.mean())
        else:
            regression.append(torch.zeros((), dtype=x.dtype))
    return torch.stack(classification).mean(), torch.stack(regression).mean()


@pytest.mark.parametrize("spread", [1.0, 6.0, 30.0])  # 30: most lie beyond the clamp, +-9.2
def test_values_are_those_of_the_definition(spread) -> None:
    logits, deltas, anchors, annotations = batch(spread=spread, dtype=torch.float64)
    labels, _ = match_anchors(anchors, annotations)
    for kind in (labels >= 0, labels == NEGATIVE, labels == IGNORED):
        assert kind[:2].any(), "the batch shows nothing of one kind"
    expected = plain_losses(logits, deltas, anchors, annotations)
    for exact, found in zip(expected, FocalLoss()(*batch(spread=spread)), strict=True):
        assert found.shape == (1,)
        assert found.item() == pytest.approx(exact.item(), rel=1e-5)


def test_gradients_are_those_of_the_definition_where_no_clamp_acts() -> None:
    logits, deltas, anchors, annotations = batch(spread=1.5, dtype=torch.float64)
    assert logits.abs().max() < 9
    loss = sum(plain_losses(logits, deltas, anchors, annotations))
    expected = torch.autograd.grad(loss, (logits, deltas))
    found = losses_and_gradients(logits, deltas, anchors, annotations)[2:]
    # 1e-7: an image's weight, 1 / positives, is a float32
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_equals_torchvisions_focal_loss_where_no_clamp_acts(seed, K) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.rand(1, 50, K, generator=generator) * 18 - 9).requires_grad_()
    labels = torch.randint(NEGATIVE, K, (1, 50), generator=generator)
    target = F.one_hot(labels.clamp(min=0), K) * (labels >= 0).unsqueeze(2)
    expected = sigmoid_focal_loss(logits, target.float(), alpha=0.25, gamma=2, reduction="sum")
    found = losses._FocalLoss.apply(logits, labels, torch.ones(1))
    # 1e-4: near a logit of 9 the 1 - p of float32 has four digits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def test_gradcheck_of_both_losses() -> None:
    # One positive, one ignored and one negative anchor in the first image; none in the second.
    anchors = torch.tensor([[0.0, 0, 10, 12], [0, 0, 10, 23], [40, 40, 50, 50]]).double()
    annotations = torch.tensor([[[0.0, 0, 10, 10, 1]], [PADDING]]).double()
    assert match_anchors(anchors, annotations)[0][0].tolist() == [1, IGNORED, NEGATIVE]
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) * 17.8 - 8.9
    deltas = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    inputs = (logits.requires_grad_(), deltas.requires_grad_(), anchors, annotations)
    assert torch.autograd.gradcheck(FocalLoss(), inputs)


def test_regression_worked() -> None:
    # The anchor is the box, so the wanted deltas are 0; beta is 1/9.
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    annotations = torch.tensor([[[0.0, 0, 10, 10, 0]]])
    deltas = torch.tensor([[[0.1, -1.0, 0.0, 0.0]]])
    # 0.1 < 1/9: 9 / 2 * 0.1^2 = 0.045; 1 > 1/9: 1 - 1/18 = 0.94444; mean over 4 coordinates
    _, regression = FocalLoss()(torch.zeros(1, 1, 1), deltas, anchors, annotations)
    assert regression.item() == pytest.approx((0.045 + 1 - 1 / 18) / 4)


# ---- saturated logits ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("logit", [12.0, 50.0, 200.0, -12.0, -50.0, -200.0])
def test_saturated_logits_are_finite_and_pulled_the_right_way(logit, dtype) -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]])  # positive, negative
    annotations = torch.tensor([[[0.0, 0, 10, 10, 0]]])
    logits = torch.full((1, 2, 1), logit, dtype=dtype, requires_grad=True)
    loss, _ = FocalLoss()(logits, torch.zeros(1, 2, 4, dtype=dtype), anchors, annotations)
    loss.sum().backward()
    # One entry is sure and wrong, clamped at p = 1e-4: alpha * (1 - 1e-4)^2 * -log(1e-4); the other
    # adds alpha * (1e-4)^2 * 1e-4, nothing.
    wrong, alpha = (1, 0.75) if logit > 0 else (0, 0.25)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(alpha * 0.9999**2 * math.log(1e4), rel=1e-5)
    # Far out the loss is linear: alpha * |x|, whose slope is alpha. The original's is 0 there.
    slopes = logits.grad.flatten().tolist()
    assert slopes[wrong] == pytest.approx(math.copysign(alpha, logit), rel=1e-2)
    assert abs(slopes[1 - wrong]) < 1e-6
    assert slopes[0] <= 0 <= slopes[1]


# ---- float16 ----


def gradients_of_both_kinds(
    logits: Tensor, anchors: Tensor, boxes: Tensor, scale: float
) -> list[Tensor]:
    """Gradient of `scale` times the loss by logits, in float32 and in float16, both as float32."""
    gradients = []
    for kind in (torch.float32, torch.float16):
        x = logits.to(kind).requires_grad_()
        loss, _ = FocalLoss()(x, torch.zeros(*logits.shape[:2], 4), anchors, boxes)
        (loss * scale).backward()
        gradients.append(x.grad.float())
    return gradients


@pytest.mark.parametrize("p", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("scale", [1.0, 2.0**8, 2.0**16])
def test_float16_gradients_are_those_of_float32_as_far_as_float16_goes(
    p: float, scale: float
) -> None:
    """Within 1 %, or within half of float16's least step, 2^-24, of the scaled gradient."""
    anchors = image_anchors(128, 160)
    boxes = torch.tensor(
        [[[10.0, 10, 60, 70, 1], [5, 5, 150, 120, 7]], [[40, 30, 75, 60, 2], PADDING]]
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, len(anchors), 80, generator=generator).mul_(0.3)
    logits = (logits + math.log(p / (1 - p))).half()
    exact, found = gradients_of_both_kinds(logits, anchors, boxes, scale)
    assert exact.abs().max() < 65504
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=2**-25)
    if exact.abs().median() > 2**-24:  # else single ones round to nothing, as they must
        background = exact > 0
        assert found[background].sum() == pytest.approx(exact[background].sum().item(), rel=1e-2)


@pytest.mark.parametrize("scale", [2.0**15, 2.0**16])
def test_what_is_lost_of_a_faint_background_is_float16s_own_rounding(scale: float) -> None:
    """Each entry of the gradient is the float16 nearest to it: nothing nearer can be returned.

    An entry of background at p = 0.001 has the slope 0.75 p^2 (p + 2 (1 - p) softplus), about
    0.75 * 3 p^3 = 2.25e-9, by the 33 positive anchors of the image 6.8e-11: times 2^15 it is
    2.2e-6. Float16's steps are 2^-24 = 6.0e-8 there, so an entry may be off by 3.0e-8, 1.3 %
    (0.7 % at 2^16; with 150 positives 6 and 3 %). Where all entries are equal, as here, so are
    their errors, however many they are. No factor inside the loss helps: the network's gradients
    are float16 from the logits on. The factor before it is the loss scale, which GradScaler
    raises until gradients overflow.
    """
    anchors, p = image_anchors(128, 160), 0.001
    box = torch.tensor([[[10.0, 10, 60, 70, 1]]])
    logits = torch.full((1, len(anchors), 80), math.log(p / (1 - p))).half()
    exact, found = gradients_of_both_kinds(logits, anchors, box, scale)
    assert (match_anchors(anchors, box)[0] >= 0).sum() == 33
    background = exact > 0
    assert exact[background].median().item() / scale == pytest.approx(2.25e-9 / 33, rel=1e-2)
    assert torch.equal(found[background], exact[background].half().float())


# ---- images without boxes, padding, chunks ----


def test_a_batch_without_boxes() -> None:
    logits, deltas, anchors, annotations = batch(spread=1.5)
    found = losses_and_gradients(logits, deltas, anchors, torch.full_like(annotations, -1))
    classification, regression, by_logits, by_deltas = found
    # Every entry is a negative, and each image's divisor is 1.
    zeros = torch.zeros_like(logits)
    expected = sigmoid_focal_loss(logits, zeros, alpha=0.25, gamma=2, reduction="sum") / 3
    assert classification.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(by_logits, torch.autograd.grad(expected, logits)[0])
    assert (by_logits > 0).all()
    assert regression.item() == 0
    assert not by_deltas.any()


def test_an_empty_image_adds_its_share() -> None:
    logits, deltas, anchors, annotations = batch()
    alone = [
        FocalLoss()(logits[i : i + 1], deltas[i : i + 1], anchors, annotations[i : i + 1])
        for i in range(3)
    ]
    together = FocalLoss()(logits, deltas, anchors, annotations)
    for one, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(one, sum(parts) / 3)
    assert alone[2][1].item() == 0


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 2, 1], [0, 2, 2, 1, 2], [2, 2, 0, 2, 1]])
def test_rows_of_padding_change_nothing_wherever_they_stand(order) -> None:
    logits, deltas, anchors, _ = batch()
    rows = torch.tensor([[*BOXES[0], PADDING]] * 3)
    expected = losses_and_gradients(logits, deltas, anchors, rows)
    found = losses_and_gradients(logits, deltas, anchors, rows[:, order])
    assert all(map(torch.equal, found, expected))


def test_sizes_of_chunks_change_nothing(monkeypatch) -> None:
    expected = losses_and_gradients(*batch())
    monkeypatch.setattr(losses, "_CPU_ENTRIES", 4 * 100)  # 756 anchors: seven chunks and a rest
    monkeypatch.setattr(losses, "_CPU_PAIRS", 3 * 2 * 100)
    torch.testing.assert_close(losses_and_gradients(*batch()), expected)


def test_autocast_changes_nothing() -> None:
    expected = FocalLoss()(*batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = FocalLoss()(*batch())
    assert all(map(torch.equal, found, expected))


# ---- the host never waits ----


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.new_tensor((1.0, 2.0)),
        lambda x: x.index_put_((x > 0,), x[0]),
        lambda x: x.repeat_interleave((x > 0).long()),
    ],
)
def test_the_check_below_sees_a_wait(wait) -> None:
    with NoHostSync(), pytest.raises(AssertionError, match="would make the host wait"):
        wait(torch.ones(3))


def test_no_wait_in_the_losses() -> None:
    inputs = batch()
    losses_and_gradients(*inputs)  # what is made once may wait once
    with NoHostSync():
        losses_and_gradients(*inputs)


# ---- launches on a GPU ----

VIEWS = {"view", "_unsafe_view", "select", "slice", "unsqueeze", "squeeze", "expand", "permute"}
VIEWS |= {"unbind", "split", "t", "transpose", "alias", "detach", "as_strided", "unfold"}
NO_LAUNCH = VIEWS | {"empty", "new_empty", "empty_like", "device"}


class CountLaunches(TorchDispatchMode):
    """Count the operators that would launch a kernel: not views, not memory without values."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in NO_LAUNCH
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("images", "height", "width", "classes"),
    [(2, 608, 832, 80), (1, 640, 640, 3), (16, 800, 1344, 80), (32, 800, 1344, 80)],
)
def test_a_gpu_launches_few_kernels_for_the_loss(
    dtype: torch.dtype, images: int, height: int, width: int, classes: int
) -> None:
    """At most 60, however large the batch; in chunks as for a CPU's cache there were thousands."""
    N = len(image_anchors(height, width))
    with FakeTensorMode(), torch.device("cuda"):
        logits = torch.empty(images, N, classes, dtype=dtype, requires_grad=True)
        deltas = torch.empty(images, N, 4, dtype=dtype, requires_grad=True)
        anchors, annotations = torch.empty(N, 4), torch.empty(images, 40, 5)
        with CountLaunches() as launches:
            losses = FocalLoss()(logits, deltas, anchors, annotations)
    assert [loss.device.type for loss in losses] == ["cuda", "cuda"]
    assert 40 <= launches.count <= 60
