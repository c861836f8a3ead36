"""Cutting a validation set: shares, classes in proportion, groups whole, the same everywhere."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data.splits import HEAD, choose_validation, read_list, write_list
from retinanet.errors import DataError


def choose(counts: list[list[int]], groups: list[int] | None = None, **more: float) -> list[int]:
    """The choice of images named 0.jpg, 1.jpg ..."""
    names = [f"{k}.jpg" for k in range(len(counts))]
    chosen = {"share": 0.2, "seed": 0, **more}
    return choose_validation(
        names,
        np.array(counts, np.int64).reshape(len(counts), -1),
        groups or list(range(len(counts))),
        share=chosen["share"],
        seed=int(chosen["seed"]),
    )


def test_a_fifth_of_the_images_with_every_class_in_proportion() -> None:
    # 100 images: 60 with two cows, 30 with a cat, 10 without boxes.
    counts = [[2, 0]] * 60 + [[0, 1]] * 30 + [[0, 0]] * 10
    val = choose(counts)
    assert sum(k < 60 for k in val) == 12
    assert sum(60 <= k < 90 for k in val) == 6
    assert sum(k >= 90 for k in val) == 2


def test_a_class_of_five_images_is_on_both_sides() -> None:
    counts = [[3, 0]] * 95 + [[0, 1]] * 5
    val = choose(counts)
    assert sum(k >= 95 for k in val) == 1
    assert len(val) == 20


def test_the_choice_is_the_same_on_every_machine() -> None:
    assert choose([[1]] * 10, share=0.3) == [3, 6, 8]
    assert choose([[1]] * 10, share=0.3, seed=1) != [3, 6, 8]


@pytest.mark.parametrize("count", [2, 3])
def test_few_images_leave_some_on_each_side(count: int) -> None:
    for share in (0.01, 0.2, 0.99):
        assert 1 <= len(choose([[1]] * count, share=share)) < count


@given(
    images=st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 5)),
        min_size=2,
        max_size=40,
    ),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_groups_stay_whole_and_order_changes_nothing(
    images: list[tuple[list[int], int]], share: float, seed: int, order: object
) -> None:
    groups = [group for _, group in images]
    counts = np.array([row for row, _ in images])
    names = [f"{k}.jpg" for k in range(len(images))]
    val = choose_validation(names, counts, groups, share=share, seed=seed)
    if len(set(groups)) > 1:
        assert 0 < len(val) < len(images)
    assert {groups[k] for k in val}.isdisjoint(groups[k] for k in set(range(len(images))) - {*val})
    turned = choose_validation(names[::-1], counts[::-1], groups[::-1], share=share, seed=seed)
    assert sorted(len(images) - 1 - k for k in turned) == val


def test_lists_are_plain_text_and_read_again(tmp_path: Path) -> None:
    names = ["images/a.jpg", "images/ü b.jpg", "c.png"]
    write_list(tmp_path / "val.txt", [names[2], names[1]])
    assert (tmp_path / "val.txt").read_text(encoding="utf-8") == f"{HEAD}\nc.png\nimages/ü b.jpg\n"
    assert read_list(tmp_path / "val.txt", names) == [2, 1]


def test_a_list_of_other_data_is_refused(tmp_path: Path) -> None:
    write_list(tmp_path / "val.txt", ["a.jpg", "gone.jpg"])
    with pytest.raises(DataError, match=r"val\.txt:3: no image 'gone\.jpg' in the data; expected"):
        read_list(tmp_path / "val.txt", ["a.jpg"])
    with pytest.raises(DataError, match="No such file"):
        read_list(tmp_path / "none.txt", ["a.jpg"])
