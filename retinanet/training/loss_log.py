"""Losses of a run, read one step late; a loss that is not finite stops it."""

import collections
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from retinanet.errors import DataError
from retinanet.runtime.device import copied_to_host
from retinanet.training.run_log import RunLog

RUNNING_LOSSES = 500  # how many steps the running loss is the mean of
MAX_OVERFLOWS = 20  # float16 steps in a row that the scaler may skip while it finds its scale


class LossLog:
    """Losses of every step, read one step late, when the device has long computed them.

    Args:
        log: records them.
        image_path: gives the file of an index, for errors.
        skips_overflow: whether a few overflows are no error: float16 has some, and the scaler skips
            their steps.
    """

    def __init__(
        self, log: RunLog, image_path: Callable[[int], Path], *, skips_overflow: bool
    ) -> None:
        self.log, self.image_path = log, image_path
        self.skips_overflow = skips_overflow
        self.running = collections.deque[float](maxlen=RUNNING_LOSSES)
        self.total, self.count = 0.0, 0
        self._overflows = 0  # steps in a row whose gradient was not finite
        self._pending: tuple[int, int, float, Callable[[], list[float]], Sequence[int]] | None = (
            None
        )

    @property
    def mean(self) -> float:
        """Mean loss of the epoch so far, without skipped steps."""
        return self.total / max(1, self.count)

    def add(self, epoch: int, step: int, lr: float, losses: Tensor, images: Sequence[int]) -> None:
        """Take a step's losses and read those of the step before."""
        numbers = copied_to_host(losses)
        self.flush()
        self._pending = (epoch, step, lr, numbers, images)

    def flush(self) -> None:
        """Read the last losses taken: this waits until the device has computed them.

        Raises:
            DataError: the loss or the gradient was not finite.
        """
        if self._pending is None:
            return
        (epoch, step, lr, numbers, images), self._pending = self._pending, None
        classification, regression, norm = numbers()
        loss = classification + regression
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        too_many = MAX_OVERFLOWS if self.skips_overflow else 0
        if not math.isfinite(loss) or self._overflows > too_many:
            names = ", ".join(str(self.image_path(index)) for index in images)
            raise DataError(
                f"epoch {epoch}, iteration {step}: the numbers are not finite: classification loss"
                f" {classification:g}, regression loss {regression:g}, gradient norm {norm:g},"
                f" learning rate {lr:g}; images: {names}; the files hold nothing of this step; try"
                " a lower --lr or --precision fp32, and look at the boxes of these images"
            )
        if loss == 0:
            return
        self.running.append(loss)
        self.total, self.count = self.total + loss, self.count + 1
        self.log.add_step(
            epoch,
            step,
            lr=lr,
            classification=classification,
            regression=regression,
            running=sum(self.running) / len(self.running),
            norm=norm,
        )
