"""A RetinaNet with an eighth of the channels, for tests of what is around the network.

It has 1/64 of the weights, so that a run writes megabytes instead of a gigabyte. Its files are
complete in all else, but a process whose network is not narrow cannot read them.

    python -m tests.support.narrow SCRIPT [FLAG ...]
"""

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields

import pytest

from retinanet import backbone, model
from retinanet.model import ModelConfig

WIDTH = backbone.WIDTH  # the full one


@contextmanager
def narrow_network(divisor: int = 8) -> Iterator[None]:
    """Build narrow models here, and in forks of this process, until the end of the context."""
    width, channels = WIDTH // divisor, ModelConfig.channels // divisor
    names = [field.name for field in fields(ModelConfig) if field.default is not MISSING]
    defaults = dict(zip(names, ModelConfig.__init__.__defaults__ or (), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "WIDTH", width)
        patch.setattr(model, "WIDTH", width)
        defaults["channels"] = channels
        patch.setattr(ModelConfig.__init__, "__defaults__", tuple(defaults.values()))
        yield


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    with narrow_network():
        runpy.run_path(sys.argv[0], run_name="__main__")
