"""The original's import path for COCO's evaluation; nothing in this package imports it."""

from torch import nn

from retinanet.data.datasets import Data
from retinanet.evaluation.coco import CocoScores, score_coco
from retinanet.inference.prediction import predict
from retinanet.postprocess import SCORE_THRESHOLD, DetectionLimits
from retinanet.runtime.console import say


def evaluate_coco(
    dataset: Data, model: nn.Module, threshold: float = SCORE_THRESHOLD
) -> CocoScores:
    """Detect, score and say the twelve numbers, AP's interval: the original's name and arguments.

    Args:
        dataset: the data set.
        model: the model, bare or wrapped.
        threshold: scores at or below it are dropped.

    Returns:
        The scores.
    """
    detections = predict(model, dataset, DetectionLimits(threshold), progress=True)
    scores = score_coco(dataset, detections)
    say(f"{scores.summary}\n{scores.certainty}")
    return scores
