"""RetinaNet (Focal Loss for Dense Object Detection, Lin et al., 2017), for the command line.

Shape letters, the same in every docstring:
    B images of a batch, H and W height then width, L pyramid levels (P3 to P7), A anchors of a
    cell (9), N all anchors of an image, K classes, M boxes of an image (padded with -1),
    D detections.
Boxes are xyxy, float32 pixels of the network's input, unless a docstring says else.
"""

__version__ = "1.0.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from retinanet.inference.detector import load as load


def __getattr__(name: str) -> object:
    """`retinanet.load`, imported when it is asked for: importing the package stays quick."""
    if name == "load":
        from retinanet.inference.detector import load

        return load
    raise AttributeError(f"module 'retinanet' has no attribute {name!r}")
