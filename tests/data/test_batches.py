"""Sampler and collater: batches of like shapes, the same in every process."""

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

from retinanet.data.batches import (
    AspectRatioBasedSampler,
    SampleIndex,
    TrainingBatches,
    collater,
)
from retinanet.data.transforms import Augmenter, Normalizer, Resizer, training_transform
from retinanet.errors import DataError
from tests.support.data_sets import csv_data, picture


class Ratios:
    """A data set of aspect ratios alone."""

    def __init__(self, ratios: list[float]) -> None:
        self.ratios = ratios

    def __len__(self) -> int:
        return len(self.ratios)

    def image_aspect_ratio(self, image_index: int) -> float:
        return self.ratios[image_index]


@given(
    st.lists(st.floats(0.05, 20), min_size=1, max_size=40),
    st.integers(1, 7),
    st.booleans(),
    st.integers(0, 3),
)
def test_each_image_once_and_an_honest_length(
    ratios: list[float], batch_size: int, drop_last: bool, seed: int
) -> None:
    sampler = AspectRatioBasedSampler(Ratios(ratios), batch_size, drop_last, seed)
    batches = list(sampler)
    images = [index for batch in batches for index in batch]
    assert len(batches) == len(sampler)
    assert len(set(images)) == len(images)
    if drop_last:
        assert all(len(batch) == batch_size for batch in batches)
    else:
        assert sorted(images) == list(range(len(ratios)))
        assert sum(len(batch) < batch_size for batch in batches) <= 1


def test_batches_hold_like_shapes_and_change_every_epoch() -> None:
    ratios = [0.5, 1.0, 2.0] * 20
    sampler = AspectRatioBasedSampler(Ratios(ratios), 4)
    epochs = [list(sampler) for _ in range(3)]
    for batches in epochs:
        assert all(len({ratios[k] for k in batch}) == 1 for batch in batches)
        assert len({ratios[batch[0]] for batch in batches[:8]}) > 1  # the shapes come mixed
    assert {frozenset(batch) for batch in epochs[0]} != {frozenset(batch) for batch in epochs[1]}
    assert [index.epoch for batch in epochs[2] for index in batch] == [2] * 60  # type: ignore[attr-defined]
    assert list(AspectRatioBasedSampler(Ratios(ratios), 4)) == epochs[0]
    assert list(AspectRatioBasedSampler(Ratios(ratios), 4, seed=1)) != epochs[0]


def test_set_epoch_and_the_count_after_it() -> None:
    sampler = AspectRatioBasedSampler(Ratios([1.0] * 30), 2)
    counted = [list(sampler) for _ in range(6)]
    sampler.set_epoch(4)
    assert [list(sampler), list(sampler)] == counted[4:]


def test_every_image_has_its_turn_although_the_last_are_dropped() -> None:
    sampler = AspectRatioBasedSampler(Ratios([1.0] * 4 + [9.0]), 2, drop_last=True)
    assert {index for _ in range(20) for batch in sampler for index in batch} == set(range(5))


def test_batch_size_below_one() -> None:
    with pytest.raises(DataError, match="batch size 0; expected at least 1; correct --batch_size"):
        AspectRatioBasedSampler(Ratios([1.0]), 0)


def test_sample_index_is_an_int_that_survives_pickling() -> None:
    index = pickle.loads(pickle.dumps(SampleIndex(5, epoch=3)))
    assert (index, index.epoch, [10, 20, 30, 40, 50, 60][index]) == (5, 3, 60)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(tmp_path: Path, persistent: bool) -> None:
    rows = "".join(f"{k}.jpg,1,2,9,{10 + k},cat\n" for k in range(6))
    for k in range(6):
        picture(tmp_path / f"{k}.jpg")
    steps = Compose([Augmenter(seed=3), Resizer(32, 64), Normalizer()])
    data = csv_data(tmp_path, rows, transform=steps)

    def epochs(workers: int) -> list[torch.Tensor]:
        torch.manual_seed(workers)
        loader = DataLoader(
            data,
            batch_sampler=AspectRatioBasedSampler(data, 2),
            collate_fn=collater,
            num_workers=workers,
            persistent_workers=persistent and workers > 0,
        )
        return [tensor for _ in range(2) for b in loader for tensor in (b["img"], b["annot"])]

    alone, helped = epochs(0), epochs(2)
    assert len(alone) == len(helped) == 12
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("augment", ["mild", "strong"])
def test_distorted_pictures_are_the_same_with_workers_and_from_the_middle(
    tmp_path: Path, augment: str
) -> None:
    rows = "".join(f"{k}.jpg,1,2,9,{10 + k},cat\n" for k in range(6))
    for k in range(6):
        picture(tmp_path / f"{k}.jpg")
    data = csv_data(tmp_path, rows, transform=training_transform(32, 64, augment=augment, seed=3))

    def epochs(workers: int, first_batch: int = 0) -> list[list[torch.Tensor]]:
        torch.manual_seed(workers)
        batches = TrainingBatches(data, 2, seed=3, workers=workers, pin_memory=False)
        return [
            [tensor for b in batches.of_epoch(*start) for tensor in (b["img"], b["annot"])]
            for start in ((0, 0), (1, first_batch))
        ]

    alone, helped, resumed = epochs(0), epochs(2), epochs(1, first_batch=2)
    for first, second in ((alone[0] + alone[1], helped[0] + helped[1]), (alone[1][4:], resumed[1])):
        assert len(first) == len(second) > 0
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(*alone, strict=True))


# ---- collater ----


def test_collater_pads_to_the_largest() -> None:
    samples = [
        {"img": torch.ones(32, 64, 3), "annot": torch.ones(2, 5), "scale": 2.0, "size": (30, 60)},
        {"img": torch.ones(64, 32, 3), "annot": torch.zeros(0, 5), "scale": 1.0, "size": (60, 30)},
    ]
    batch = collater(samples)  # type: ignore[arg-type]
    assert batch["img"].shape == (2, 3, 64, 64)
    assert batch["img"].is_contiguous(memory_format=torch.channels_last)
    assert batch["img"][0].sum() == 3 * 32 * 64
    assert not batch["img"][0, :, 32:].any()
    assert batch["annot"].tolist() == [[[1] * 5] * 2, [[-1] * 5] * 2]
    assert (batch["scale"], batch["size"]) == ([2.0, 1.0], [(30, 60), (60, 30)])
    assert "index" not in batch


def test_collater_keeps_one_row_where_no_image_has_a_box() -> None:
    batch = collater([{"img": torch.ones(32, 32, 3), "annot": torch.zeros(0, 5)}])
    assert batch["annot"].tolist() == [[[-1] * 5]]
