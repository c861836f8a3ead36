"""The original's import path for data sets, batches, transforms; nothing here imports it."""

from retinanet.data.batches import AspectRatioBasedSampler, Batch, SampleIndex, collater
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.transforms import Augmenter, Normalizer, Resizer, Sample, UnNormalizer
from retinanet.inference.image_folder import ImageFiles

__all__ = [
    "AspectRatioBasedSampler",
    "Augmenter",
    "Batch",
    "CSVDataset",
    "CocoDataset",
    "ImageFiles",
    "Normalizer",
    "Resizer",
    "Sample",
    "SampleIndex",
    "UnNormalizer",
    "collater",
]
