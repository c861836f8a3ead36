"""Flip, resize, normalise: worked examples, every order, round trips."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import Compose

from retinanet.data.transforms import (
    AUGMENTATIONS,
    LEAST_SHARE,
    MEAN,
    STD,
    Augmenter,
    Distorter,
    Normalizer,
    Resizer,
    Sample,
    UnNormalizer,
    random_stream,
    training_transform,
)


def sample(height: int = 48, width: int = 64, **more: object) -> Sample:
    """A smooth picture, of which resizing in other orders loses nothing, with one box."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    picture = torch.stack((x, y, (x + y) / 2), dim=2) * 200 + 20
    annot = torch.tensor([[10.0, 4.0, 30.0, 24.0, 2.0]])
    return {"img": picture.round().to(torch.uint8), "annot": annot, **more}  # type: ignore[typeddict-item]


def flipped(value: Sample) -> Sample:
    return Augmenter()(value, flip_x=1.0)


# ---- Augmenter ----


def test_flip_moves_pixels_and_boxes() -> None:
    before = sample(index=3, epoch=1)
    after = flipped(before)
    assert torch.equal(after["img"], before["img"].flip(1))
    # x1 = 64 - 30, x2 = 64 - 10
    assert after["annot"].tolist() == [[34, 4, 54, 24, 2]]
    assert (after["index"], after["epoch"]) == (3, 1)
    assert before["annot"].tolist() == [[10, 4, 30, 24, 2]]  # the sample given stays as it was


def test_flip_leaves_the_padding_where_it_is() -> None:
    after = flipped(Resizer(48, 64)(sample(40, 60)))  # 43 x 64 of 64 x 64
    height, width = after["size"]
    assert (height, width) == (43, 64)
    assert not after["img"][height:].any()
    narrow = flipped({**sample(32, 40), "img": sample(32, 64)["img"], "size": (32, 40)})
    assert not narrow["img"][:, 40:].any()
    assert torch.equal(narrow["img"][:, :40], sample(32, 64)["img"][:, :40].flip(1))
    assert narrow["annot"][0, :4].tolist() == [10, 4, 30, 24]  # 40 - 30, 40 - 10


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_flip_twice_is_identity(height: int, width: int, count: int) -> None:
    before = sample(height, width)
    before["annot"] = torch.arange(count * 5).reshape(count, 5).float()
    twice = flipped(flipped(before))
    assert torch.equal(twice["img"], before["img"])
    assert torch.equal(twice["annot"], before["annot"])


def test_the_choice_depends_on_seed_epoch_and_index_alone() -> None:
    def choices(seed: int, epoch: int) -> list[bool]:
        flip = Augmenter(seed)
        samples = (sample(2, 3, index=index, epoch=epoch) for index in range(400))
        return [flip(s)["annot"][0, 0].item() != 10 for s in samples]

    first = choices(0, 0)
    torch.manual_seed(5)
    assert choices(0, 0) == first
    assert choices(0, 1) != first != choices(1, 0)
    assert 160 < sum(first) < 240  # half of 400, four standard deviations


def test_a_sample_without_index_draws_from_torchs_generator() -> None:
    def choices() -> list[bool]:
        torch.manual_seed(1)
        flip = Augmenter()
        return [flip(sample(2, 3, index=0))["annot"][0, 0].item() != 10 for _ in range(50)]

    assert choices() == choices()
    assert 0 < sum(choices()) < 50


def test_streams_of_two_purposes_differ() -> None:
    assert random_stream("flip", 1, 2).random() == random_stream("flip", 1, 2).random()
    assert random_stream("flip", 1, 2).random() != random_stream("shuffle", 1, 2).random()


# ---- Distorter ----

DISTORTIONS = AUGMENTATIONS[1:]


def spotted(x1: int, y1: int, x2: int, y2: int, **key: int) -> Sample:
    """A picture of 96 x 128 pixels, of the colour that is filled in, with a white box."""
    picture = (255 * torch.tensor(MEAN)).to(torch.uint8).repeat(96, 128, 1)
    picture[y1:y2, x1:x2] = 250
    return {"img": picture, "annot": torch.tensor([[x1, y1, x2, y2, 1.0]]), **key}  # type: ignore[typeddict-item]


def bright(value: Sample) -> Tensor:
    """[H, W] which pixels are of the white box: green above the middle of its range."""
    green = value["img"][:, :, 1].float()
    return green > (green.max() + green.min()) / 2


@pytest.mark.parametrize("augment", DISTORTIONS)
def test_boxes_stay_with_what_they_enclose(augment: str) -> None:
    distort = Distorter(augment, 0, 96, 128)
    scales = []
    for index in range(60):
        after = distort(spotted(50, 40, 80, 60, index=index, epoch=0))
        assert (after["size"], after["original_size"]) == ((96, 128), (96, 128))
        assert after["img"].shape == (96, 128, 3)
        assert after["img"].dtype == torch.uint8
        if not len(after["annot"]):
            continue
        y, x = torch.nonzero(bright(after), as_tuple=True)
        found = torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1))
        assert (found - after["annot"][0, :4]).abs().max() < 1.6  # resizing blurs the edges
        scales.append(after["scale"])
    low, high = {"mild": (0.8, 1.25), "strong": (0.5, 2.0)}[augment]
    assert low - 0.02 < min(scales) < low + 0.3 * (high - low)
    assert high - 0.5 * (high - low) < max(scales) <= high  # larger ones are cut off more often


@pytest.mark.parametrize("augment", DISTORTIONS)
def test_boxes_that_are_cut_below_the_share_are_dropped(augment: str) -> None:
    distort = Distorter(augment, 0, 96, 128)
    shares: dict[bool, list[float]] = {True: [], False: []}
    for index in range(300):
        after = distort(spotted(0, 0, 40, 30, index=index, epoch=0))
        visible = bright(after).sum().item()
        shares[len(after["annot"]) == 1].append(visible / (40 * 30 * after["scale"] ** 2))
    assert min(shares[True]) > LEAST_SHARE - 0.05  # pixels of the edge count whole or not at all
    assert len(shares[False]) < 150
    if augment == "strong":  # a mild cut leaves more of any box
        assert 0 < len(shares[False])
        assert max(shares[False]) < LEAST_SHARE + 0.05


def test_distortions_depend_on_seed_epoch_and_index_alone() -> None:
    def pictures(seed: int, epoch: int) -> list[Tensor]:
        distort = Distorter("strong", seed, 96, 128)
        return [distort(spotted(9, 9, 40, 30, index=k, epoch=epoch))["img"] for k in range(4)]

    def same(a: list[Tensor], b: list[Tensor]) -> list[bool]:
        return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]

    torch.manual_seed(1)
    first, state = pictures(0, 0), torch.get_rng_state()
    assert torch.equal(state, torch.manual_seed(1).get_state())  # others' draws stay as they were
    torch.manual_seed(2)
    assert all(same(first, pictures(0, 0)))
    assert not any(same(first, pictures(0, 1)) + same(first, pictures(1, 0)))
    assert not any(same(first[:3], first[1:]))


@pytest.mark.parametrize("augment", DISTORTIONS)
def test_what_is_filled_up_is_what_padding_is(augment: str) -> None:
    """Zero after normalisation; a picture of the mean colour shows no border that was added."""
    distort = Distorter(augment, 0, 96, 128)
    distort.recolour = lambda picture: picture  # type: ignore[assignment]
    mean = (255 * torch.tensor(MEAN)).round().to(torch.uint8).expand(96, 128, 3)
    for index in range(9):
        after = distort({"img": mean, "annot": torch.zeros(0, 5), "index": index, "epoch": 0})
        assert Normalizer()(after)["img"].abs().max() < 0.02  # 1 / 255 / 0.225


@pytest.mark.parametrize("augment", DISTORTIONS)
def test_distorted_samples_of_any_kind(augment: str) -> None:
    key = {"index": 1, "epoch": 2}
    distort = Distorter(augment, 0, 48, 64)
    whole = distort(sample(**key))
    floats = distort({**sample(**key), "img": sample()["img"] / 255})
    assert floats["img"].dtype == torch.float32
    assert (255 * floats["img"] - whole["img"]).abs().max() < 4  # rounded after each operation
    padded = torch.zeros(64, 96, 3, dtype=torch.uint8)
    padded[:48, :64] = sample()["img"]
    assert torch.equal(
        distort({**sample(**key), "img": padded, "size": (48, 64)})["img"], whole["img"]
    )
    empty = distort({**sample(**key), "annot": torch.zeros(0, 5)})
    assert torch.equal(empty["img"], whole["img"])
    assert empty["annot"].shape == (0, 5)
    thin = sample(1, 900, **key)
    assert distort(thin) is thin
    unkeyed = [distort(sample())["img"] for _ in range(2)]  # from torch's own generator
    assert not torch.equal(*unkeyed)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize(("height", "width"), [(50, 90), (90, 31), (480, 640), (7, 3)])
def test_training_pictures_have_the_size_of_all_others(
    augment: str, height: int, width: int
) -> None:
    given = sample(height, width, index=0, epoch=0)
    found = training_transform(96, 128, augment=augment, seed=0)(given)
    expected = Resizer(96, 128)(given)
    assert found["img"].shape == expected["img"].shape
    assert (found["size"], found["original_size"]) == (expected["size"], (height, width))
    rows, columns = found["size"]
    assert not found["img"][rows:].any()
    assert not found["img"][:, columns:].any()


# ---- Resizer ----


def test_resizing_scales_boxes_by_the_real_ratios() -> None:
    after = Resizer(608, 1024)(sample(480, 640))
    assert after["size"] == (608, 811)
    assert after["img"].shape == (608, 832, 3)
    assert after["img"].dtype == torch.uint8
    assert after["scale"] == pytest.approx(608 / 480)
    assert after["original_size"] == (480, 640)
    x, y = 811 / 640, 608 / 480
    assert after["annot"][0].tolist() == pytest.approx([10 * x, 4 * y, 30 * x, 24 * y, 2])
    assert not after["img"][:, 811:].any()
    assert after["img"][:, :811].any(dim=2).all()


def test_no_padding_where_the_size_divides() -> None:
    after = Resizer(64, 96)(sample(64, 96))
    assert torch.equal(after["img"], sample(64, 96)["img"])


def test_resizing_twice_keeps_the_scale_to_the_file() -> None:
    after = Resizer(96, 400)(Resizer(48, 64)(sample(24, 30)))  # 24 x 30, 48 x 60, 96 x 120
    assert after["scale"] == pytest.approx(4)
    assert after["original_size"] == (24, 30)
    assert after["size"] == (96, 120)
    assert after["annot"][0, :4].tolist() == pytest.approx([40, 16, 120, 96])


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 80), st.integers(40, 200))
def test_boxes_scale_back(height: int, width: int, min_side: int, max_side: int) -> None:
    before = sample(height, width)
    after = Resizer(min_side, max_side)(before)
    new_height, new_width = after["size"]
    back = torch.tensor([width / new_width, height / new_height] * 2 + [1.0])
    torch.testing.assert_close(after["annot"] * back, before["annot"])
    assert max(after["size"]) <= max(max_side, 1)
    assert all(side % 32 == 0 for side in after["img"].shape[:2])


def test_the_quick_resize_agrees_with_floats() -> None:
    noise = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    annot = torch.zeros(0, 5)
    quick = Resizer(31, 99)({"img": noise, "annot": annot})["img"]
    exact = Resizer(31, 99)({"img": noise.float(), "annot": annot})["img"]
    assert (quick.float() - exact).abs().max() <= 1


# ---- Normalizer ----


def test_normalising_a_pixel() -> None:
    image = torch.tensor([[[255, 0, 51]]], dtype=torch.uint8)
    after = Normalizer()({"img": image, "annot": torch.zeros(0, 5)})
    # (1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225
    assert after["img"].flatten().tolist() == pytest.approx(
        [2.248908, -2.035714, -0.915556], abs=1e-5
    )
    assert after["img"].dtype == torch.float32
    same = Normalizer()({"img": image / 255, "annot": torch.zeros(0, 5)})  # floats are 0..1
    torch.testing.assert_close(same["img"], after["img"])


def test_unnormalizer_is_the_way_back_and_leaves_its_input_alone() -> None:
    before = sample()
    image = Normalizer()(before)["img"].permute(2, 0, 1)
    kept = image.clone()
    expected = before["img"].permute(2, 0, 1) / 255
    torch.testing.assert_close(UnNormalizer()(image), expected, atol=1e-6, rtol=0)
    assert torch.equal(image, kept)
    assert UnNormalizer()(image[None])[0].shape == image.shape


# ---- together ----

STEPS: list[Callable[[Sample], Sample]] = [Resizer(96, 150), flipped, Normalizer()]


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)))
def test_every_order_gives_the_same(order: tuple[Callable[[Sample], Sample], ...]) -> None:
    expected = Compose(STEPS)(sample())
    found = Compose(order)(sample())
    assert found["img"].dtype == torch.float32
    one_step = 1.01 / 255 / min(STD)  # of uint8
    torch.testing.assert_close(found["img"], expected["img"], atol=one_step, rtol=0)
    torch.testing.assert_close(found["annot"], expected["annot"])
    assert found["size"] == expected["size"] == (96, 128)


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)))
def test_padding_is_zero_after_normalisation(order: tuple[Callable[[Sample], Sample], ...]) -> None:
    found = Compose(order)(sample(40, 33))
    height, width = found["size"]
    assert found["img"].shape[:2] != (height, width)
    assert not found["img"][height:].any()
    assert not found["img"][:, width:].any()
    assert found["img"][:height, :width].any(dim=2).all()


def test_somebodys_numpy_samples_are_taken() -> None:
    # the original's kind: float64 of 0..1, boxes float64, a view with negative strides
    picture = np.random.default_rng(0).random((40, 50, 3))[:, ::-1]
    theirs = {"img": picture, "annot": np.zeros((0, 5)), "scale": 1.0}
    found = Compose([Normalizer(), Augmenter(), Resizer(32, 64)])(theirs)
    assert isinstance(found["img"], Tensor)
    assert found["img"].dtype == found["annot"].dtype == torch.float32
    assert found["annot"].shape == (0, 5)
    pixel = Normalizer()(theirs)["img"][0, 0]  # type: ignore[typeddict-item]
    expected = (picture[0, 0] - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(pixel, expected, rtol=1e-5)
