"""The curves of a run, from its records."""

import numpy as np

from retinanet.report.charts import POINTS, loss_curve, metric_curve


def step(epoch: int, iteration: int, loss: float | None) -> dict:
    return {"kind": "step", "epoch": epoch, "iteration": iteration, "running_loss": loss}


def epoch(number: int, **metrics: float) -> dict:
    return {"kind": "epoch", "epoch": number, "mean_loss": 1.0, "metrics": metrics}


def test_losses_over_epochs_without_what_was_not_finite() -> None:
    history = [step(0, 0, 4.0), step(0, 1, None), epoch(0), step(1, 0, 3.0), step(1, 1, 2.0)]
    x, y = loss_curve(history, "running_loss")
    assert (x.tolist(), y.tolist()) == ([0, 1, 1.5], [4, 3, 2])


def test_many_steps_become_means_of_equal_stretches() -> None:
    history = [step(0, k, float(k)) for k in range(4 * POINTS)]
    x, y = loss_curve(history, "running_loss")
    np.testing.assert_allclose(y, 4 * np.arange(POINTS) + 1.5)  # of 0, 1, 2, 3; of 4 ...
    np.testing.assert_allclose(x, y / (4 * POINTS))


def test_metrics_of_the_epochs_that_were_evaluated() -> None:
    history = [epoch(0, AP=0.1), step(1, 0, 2.0), epoch(1), epoch(2, AP=0.3, AP_small=-1)]
    x, y = metric_curve(history, "AP")
    assert (x.tolist(), y.tolist()) == ([0, 2], [0.1, 0.3])
    for name in ("AP_small", "mAP"):
        assert metric_curve(history, name)[0].tolist() == []


def test_no_history() -> None:
    assert [len(column) for column in loss_curve([], "running_loss")] == [0, 0]
    assert [len(column) for column in metric_curve([], "AP")] == [0, 0]
