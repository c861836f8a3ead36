"""The curves of a run, from the records of its metrics.jsonl.

Used of a record: `{"kind": "step", "epoch", "iteration", a loss by its name, ...}`, or
`{"kind": "epoch", "epoch", "metrics": {name: value}, ...}`; epochs and iterations count from 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from retinanet.curves import Floats

Records: TypeAlias = Sequence[Mapping[str, Any]]

POINTS = 300  # of a curve: more cannot be told apart on a screen


def loss_curve(history: Records, name: str) -> tuple[Floats, Floats]:
    """Epochs [T] and a loss [T] of the steps, or their means over equal stretches if many.

    A loss that was not finite is None, and left out.
    """
    steps = [record for record in history if record["kind"] == "step"]
    length = 1 + max((record["iteration"] for record in steps), default=0)  # of an epoch
    points = [
        (record["epoch"] + record["iteration"] / length, record[name])
        for record in steps
        if record[name] is not None
    ]
    table = np.array(points, dtype=float).reshape(-1, 2)
    if len(table) > POINTS:
        table = np.array([part.mean(axis=0) for part in np.array_split(table, POINTS)])
    return table[:, 0], table[:, 1]


def metric_curve(history: Records, name: str) -> tuple[Floats, Floats]:
    """Epochs [T] and a metric [T] of those that have it; -1 is COCO's sign for none."""
    points = [
        (record["epoch"], record["metrics"][name])
        for record in history
        if record["kind"] == "epoch" and record["metrics"].get(name, -1) >= 0
    ]
    table = np.array(points, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
