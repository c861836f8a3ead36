"""Anchors: the original's bit for bit, worked examples, the grids of other projects."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from retinanet.anchors import Anchors, image_anchors, level_shapes
from tests.support.helpers import golden_arrays


@pytest.mark.parametrize("size", [(64, 96), (128, 128), (160, 224)])
def test_equal_the_original_bit_for_bit(size) -> None:
    expected = golden_arrays("anchors.npz")[f"anchors_{size[0]}x{size[1]}"]
    assert torch.equal(image_anchors(*size), expected)


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        # divides by 128: halves all the way
        ((128, 256), [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]),
        # the usual input: 608 / 64 = 9.5 and 608 / 128 = 4.75 are rounded up
        ((608, 1024), [(76, 128), (38, 64), (19, 32), (10, 16), (5, 8)]),
        # one pixel more than 64 x 96 gives one cell more where the stride divided: 65 / 8 = 8.1
        ((65, 97), [(9, 13), (5, 7), (3, 4), (2, 2), (1, 1)]),
        # never no cell
        ((1, 1), [(1, 1)] * 5),
    ],
)
def test_cells_of_each_level_and_nine_anchors_of_each(size, shapes) -> None:
    assert level_shapes(*size) == shapes
    assert image_anchors(*size).shape == (9 * sum(rows * columns for rows, columns in shapes), 4)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        # P3, size 32, first cell: centre (4, 4). Ratio h/w = 1/2 comes first, and the area stays
        # 32 * 32: w = 32 / sqrt(0.5) = 45.2548, h = 22.6274.
        (0, (4 - 22.6274, 4 - 11.3137, 4 + 22.6274, 4 + 11.3137)),
        # the next scale of the same ratio, 2^(1/3): w = 57.0175, h = 28.5088
        (1, (4 - 28.5088, 4 - 14.2544, 4 + 28.5088, 4 + 14.2544)),
        # ratio 1 follows after three scales: 32 x 32
        (3, (-12, -12, 20, 20)),
        # ratio 2: taller than wide
        (6, (4 - 11.3137, 4 - 22.6274, 4 + 11.3137, 4 + 22.6274)),
        # nine anchors later the next cell of the row, 8 px to the right
        (9 + 3, (-4, -12, 28, 20)),
        # a row of 96 / 8 = 12 cells later the next row, 8 px down
        (12 * 9 + 3, (-12, -4, 20, 28)),
        # 8 * 12 cells later P4: size 64, centre (8, 8)
        (8 * 12 * 9 + 3, (8 - 32, 8 - 32, 8 + 32, 8 + 32)),
        # the last is P7's, centre (64, 64), ratio 2, scale 2^(2/3): side 812.7493 / sqrt(2) wide
        (-1, (64 - 287.3503, 64 - 574.7006, 64 + 287.3503, 64 + 574.7006)),
    ],
)
def test_worked_anchors_of_an_image_of_64_x_96(index, expected) -> None:
    assert image_anchors(64, 96)[index].tolist() == pytest.approx(expected, abs=1e-4)


def test_other_sizes_ratios_and_scales() -> None:
    anchors = Anchors(sizes=(8, 16, 32, 64, 128), ratios=(1.0,), scales=(1.0, 1.5))
    found = anchors(torch.zeros(3, 3, 64, 64))
    assert found.shape == (1, 2 * (64 + 16 + 4 + 1 + 1), 4)
    assert found[0, :2].tolist() == [[0, 0, 8, 8], [-2, -2, 10, 10]]  # centre (4, 4)


@pytest.mark.parametrize(
    ("grid", "indices", "expected"),
    [
        # detectron2 and mmdetection: the first is on the image's corner; 32 x 32, then 8 px on
        ("corner", (0, 3, 12), [(-22.6274, -11.3137), (-16, -16), (-8, -16)]),
        # torchvision: half of 45.25 x 22.63 is 22.6 x 11.3; 40 and 50, not 40.3 and 50.8
        ("torchvision", (0, 1, 2), [(-23, -11), (-28, -14), (-35, -18)]),
        ("torchvision", (3, 4, 5, 12), [(-16, -16), (-20, -20), (-25, -25), (-8, -16)]),
        # ODTK: as ours
        ("odtk", (3, 12), [(-12, -12), (-4, -12)]),
    ],
)
def test_grids_of_other_projects(grid, indices, expected) -> None:
    found = image_anchors(64, 96, grid=grid)[list(indices)]
    assert found[:, :2].tolist() == [pytest.approx(corner, abs=1e-4) for corner in expected]


def test_odtk_names_the_last_pixel_inside() -> None:
    difference = image_anchors(64, 96, grid="odtk") - image_anchors(64, 96)
    torch.testing.assert_close(difference, torch.tensor([0.0, 0, 1, 1]).expand_as(difference))


def test_torchvisions_cells_divide_the_image_in_whole_pixels() -> None:
    # 96 / 2 rows and 160 / 3 columns of P6: 48 and 53, where a stride of 64 gives one cell each
    anchors = image_anchors(96, 160, grid="torchvision")
    before = 9 * (12 * 20 + 6 * 10 + 3 * 5)
    P6 = anchors[before : before + 9 * 6].reshape(2, 3, 9, 4)
    centers = (P6[..., :2] + P6[..., 2:])[:, :, 3] / 2
    assert centers[0].tolist() == [[0, 0], [53, 0], [106, 0]]
    assert centers[1].tolist() == [[0, 48], [53, 48], [106, 48]]


def test_anchors_equal_torchvisions_own() -> None:
    generator = AnchorGenerator(
        tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512)),
        ((0.5, 1.0, 2.0),) * 5,
    )
    for size in ((64, 96), (96, 160), (608, 1024)):
        images = ImageList(torch.zeros(1, 3, *size), [size])
        maps = [torch.zeros(1, 1, *shape) for shape in level_shapes(*size)]
        assert torch.equal(image_anchors(*size, grid="torchvision"), generator(images, maps)[0])


def test_made_once_per_size() -> None:
    assert image_anchors(32, 64) is image_anchors(32, 64)
    assert image_anchors(32, 64) is not image_anchors(64, 32)


def test_first_made_in_an_evaluation_they_serve_training() -> None:
    image_anchors.cache_clear()
    with torch.inference_mode():
        image_anchors(32, 32)
    factor = torch.ones((), requires_grad=True)
    # An inference tensor could not be kept for the backward pass of this product.
    (image_anchors(32, 32) * factor).sum().backward()
    assert factor.grad is not None
