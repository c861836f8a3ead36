"""The line on a run's length: once its speed is known, with ways to shorten it."""

import argparse
import re
from typing import Any

import pytest
import torch

from retinanet.cli.run_length import run_length
from retinanet.model import ModelConfig
from retinanet.training.run_clock import Course, RunClock


def said(course: Course, step_seconds: float, depth: int = 50, **flags: Any) -> str:
    """The line after ten steps of so many seconds."""
    now = 0.0
    clock = RunClock(course, clock=lambda: now)
    for step in range(10):
        clock.begin_step(0, step)
        now += step_seconds
        clock.end_step()
    assert clock.is_known
    given = {"minutes": course.minutes, "resume": None, "weights": "imagenet"}
    given |= {"min_side": 608, "max_side": 1024}
    config = ModelConfig(3, depth)
    return run_length(argparse.Namespace(**given | flags), config, clock, 0, 10)


def test_a_run_of_hours_says_what_would_shorten_it() -> None:
    """10 epochs of 1,801 steps of 2 s; 10 are done; 3 s at the end: 36,003 s, 10:00:03.

    416 px of 608 are 0.468 of the pixels: 4:40:55. The smaller networks' shares are of their FLOPs;
    the recipe's is near a quarter (2.2 to 2.8 hours).
    """
    random = torch.random.get_rng_state()
    text = said(Course(1801, 10), 2.0)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert "takes about 10:00:03 on this machine" in text
    assert "--min_side 416 --max_side 704 (4:40:55)" in text
    assert re.search(r"--depth 18 \(7:\d\d:\d\d\)", text)
    assert re.search(r"--depth 18 --fpn_channels 80 --head_convs 2 \(2:\d\d:\d\d\)", text)
    assert text.endswith(", --minutes 60")


def test_only_what_can_be_given_is_proposed() -> None:
    """Weights of a file are of one network, and smaller images than 256 px are not proposed."""
    text = said(Course(1800, 10), 2.0, weights="model.pt", min_side=320, max_side=512)
    assert "--depth" not in text
    assert "--min_side" not in text
    assert "--minutes 60" in text


def test_a_resumed_run_proposes_nothing_that_it_would_refuse() -> None:
    """Sizes, network and minutes decide the weights: they must be those of the run so far."""
    text = said(Course(1801, 10), 2.0, resume=True)
    assert text == "By its steps so far the rest of the run takes about 10:00:03"


def test_a_shorter_run_says_nothing() -> None:
    assert said(Course(1800, 1), 1.9) == ""


def test_a_run_of_some_minutes_says_how_many_epochs_it_expects() -> None:
    """588 s (98 % of 10 min) less 3 s at the end hold 292 steps of 2 s: 5.85 epochs of 50."""
    assert said(Course(50, None, 10.0), 2.0) == "--minutes 10: there is time for about 5.8 epochs"


@pytest.mark.parametrize("depth", [18, 50])
def test_the_smallest_network_has_nothing_smaller_by_depth(depth: int) -> None:
    """A share of 1 is no way to shorten anything."""
    text = said(Course(9000, 1), 1.0, depth, weights="none")
    assert ("--depth 18 (" in text) == (depth > 18)
