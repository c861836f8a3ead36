"""RetinaNet (Focal Loss for Dense Object Detection, Lin et al., 2017), for the command line.

Shape letters, the same in every docstring:
    B images of a batch, H and W height then width, L pyramid levels (P3 to P7), A anchors of a
    cell (9), N all anchors of an image, K classes, M boxes of an image (padded with -1),
    D detections.
Boxes are xyxy, float32 pixels of the network's input, unless a docstring says else.
"""

import os

__version__ = "1.0.0"

# torch's threads wait for each other by spinning, in libgomp for a millisecond and more. Beside
# other work on the machine they take the time from the very thread that they wait for; asleep after
# 3,000 turns they don't, and a machine left alone is as fast. Read when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from retinanet.inference.detector import load as load


def __getattr__(name: str) -> object:
    """`retinanet.load`, imported when it is asked for: importing the package stays quick."""
    if name == "load":
        from retinanet.inference.detector import load

        return load
    raise AttributeError(f"module 'retinanet' has no attribute {name!r}")
