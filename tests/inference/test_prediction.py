"""Detections of a data set: one shape in a batch, in order, in pixels of the files."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose

from retinanet.data.datasets import CSVDataset
from retinanet.data.transforms import Normalizer, Resizer
from retinanet.errors import DataError
from retinanet.inference.prediction import predict
from retinanet.model import resnet18
from retinanet.postprocess import DetectionLimits, Detections

pytestmark = pytest.mark.usefixtures("narrow")


class Echo(nn.Module):
    """A detector that finds one thing, the whole input, and labels it by its first pixel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches, self.sizes, self.limits, self.states = [], [], [], []

    def detect(self, images, sizes, limits):
        assert images.is_contiguous(memory_format=torch.channels_last)
        self.batches.append(tuple(images.shape))
        self.sizes.extend(sizes)
        self.limits.append(limits)
        self.states.append(
            (self.training, torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
        )
        H, W = images.shape[-2:]
        return [
            Detections(torch.ones(1), image[0, 0, :1].long(), torch.tensor([[0.0, 0.0, W, H]]))
            for image in images
        ]


class Pictures:
    """Samples of these padded shapes; the first pixel of each holds its index."""

    def __init__(self, shapes, **extra):
        self.samples = []
        for index, (H, W) in enumerate(shapes):
            img = torch.randn(H, W, 3, generator=torch.Generator().manual_seed(index))
            img[0, 0] = index
            self.samples.append({"img": img, "annot": torch.zeros(0, 5), "scale": 1.0, **extra})

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class SortedPictures(Pictures):
    def image_aspect_ratio(self, index):
        H, W, _ = self.samples[index]["img"].shape
        return W / H


class BrokenPictures(Pictures):
    def __getitem__(self, index):
        raise DataError("a.jpg: no image")


WIDE, TALL = (64, 96), (96, 64)
MIXED = [WIDE, TALL, WIDE, WIDE, TALL, (64, 64), WIDE]


@pytest.fixture(scope="module")
def model():
    """A network that finds something: random output weights, and no prior against it."""
    torch.manual_seed(0)
    network = resnet18(num_classes=3)
    nn.init.normal_(network.classificationModel.output.weight, std=0.003)
    nn.init.normal_(network.regressionModel.output.weight, std=0.003)
    nn.init.constant_(network.classificationModel.output.bias, -2.0)
    return network.train()


def assert_same(found, expected, tolerance=1e-3):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours.scores) > 0
        assert ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.scores, theirs.scores, atol=tolerance, rtol=0)
        torch.testing.assert_close(ours.boxes, theirs.boxes, atol=tolerance, rtol=0)


def test_batches_give_what_single_images_give(model) -> None:
    dataset = SortedPictures(MIXED)
    expected = []
    single = copy.deepcopy(model).eval()
    for index, size in enumerate(MIXED):
        with torch.no_grad():
            expected += single.detect(dataset[index]["img"].permute(2, 0, 1)[None], [size])
    assert_same(predict(model, dataset, batch_size=3), expected)
    assert_same(predict(model, dataset, batch_size=1), expected)


def test_order_is_that_of_the_data_set() -> None:
    found = predict(Echo(), SortedPictures(MIXED), batch_size=2)
    assert [int(one.labels) for one in found] == list(range(len(MIXED)))


def test_a_batch_holds_one_shape() -> None:
    network = Echo()
    predict(network, Pictures(MIXED), batch_size=4)  # no aspect ratios: as they come
    # Of wide 0, tall 1, wide 2 3, tall 4, square 5, wide 6: each waits for at most four others.
    assert [shape[0] for shape in network.batches] == [3, 2, 1, 1]

    network = Echo()
    predict(network, SortedPictures(MIXED), batch_size=3)
    assert network.batches == [(2, 3, 96, 64), (3, 3, 64, 96), (1, 3, 64, 64), (1, 3, 64, 96)]


def test_boxes_use_the_real_ratio_of_each_axis_and_are_clipped_to_the_file() -> None:
    # A file of 1000 x 333 pixels (height x width) fits 128 as 128 x 43, not 128 x 42.624. The
    # detector's box ends at the padding, 128 x 64, hence outside the file.
    dataset = Pictures([(128, 64)], scale=0.128, size=(128, 43), original_size=(1000, 333))
    network = Echo()
    (found,) = predict(network, dataset)
    assert network.sizes == [(128, 43)]
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 333.0, 1000.0]]))

    network.detect = lambda images, sizes, limits: [
        Detections(torch.ones(1), torch.zeros(1).long(), torch.tensor([[4.3, 12.8, 21.5, 64.0]]))
    ]
    (found,) = predict(network, dataset)
    torch.testing.assert_close(found.boxes, torch.tensor([[33.3, 100.0, 166.5, 500.0]]))


def test_our_data_sets_end_in_pixels_of_their_files(tmp_path, model) -> None:
    sizes = [(90, 131), (131, 90), (200, 300)]  # (height, width)
    for index, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "val.csv").write_text("0.png,,,,,\n1.png,,,,,\n2.png,1,2,30,40,cat\n")
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\nemu,2\n")
    transform = Compose([Resizer(min_side=64, max_side=96), Normalizer()])
    dataset = CSVDataset(tmp_path / "val.csv", tmp_path / "classes.csv", transform)

    expected = []
    single = copy.deepcopy(model).eval()
    for index, (height, width) in enumerate(sizes):
        sample = dataset[index]
        with torch.no_grad():
            (found,) = single.detect(sample["img"].permute(2, 0, 1)[None], [sample["size"]])
        y_ratio, x_ratio = height / sample["size"][0], width / sample["size"][1]
        boxes = found.boxes * torch.tensor([x_ratio, y_ratio, x_ratio, y_ratio])
        expected.append(found._replace(boxes=boxes))
        assert boxes[:, 2].max() <= width + 1e-3
        assert boxes[:, 3].max() <= height + 1e-3
    assert_same(predict(model, dataset), expected)


def test_samples_with_nothing_but_the_original_keys() -> None:
    network = Echo()
    (found,) = predict(network, Pictures([WIDE], scale=0.5))
    assert network.sizes == [WIDE]
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 192.0, 128.0]]))


def test_samples_that_nobody_resized() -> None:
    # No scale: the network's input is the file.
    dataset = Pictures([WIDE])
    del dataset.samples[0]["scale"]
    (found,) = predict(Echo(), dataset)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0.0, 96.0, 64.0]]))


def test_training_flags_come_back(model) -> None:
    wrapper = nn.DataParallel(model)
    wrapper.training = True  # as the original's scripts set it: the wrapper's flag alone
    model.train()
    model.freeze_bn()
    before = [module.training for module in wrapper.modules()]
    assert len(set(before)) == 2
    predict(wrapper, Pictures([WIDE]))
    assert [module.training for module in wrapper.modules()] == before

    with pytest.raises(DataError):
        predict(wrapper, BrokenPictures([WIDE]))
    assert [module.training for module in wrapper.modules()] == before


def test_the_network_runs_in_evaluation_and_inference_mode() -> None:
    network = Echo().train()
    predict(network, Pictures([WIDE]))
    predict(network, Pictures([WIDE]), autocast=torch.bfloat16)
    assert network.states == [(False, True, False), (False, True, True)]


def test_a_wrapped_model_finds_the_same(model) -> None:
    dataset = SortedPictures(MIXED)
    assert_same(predict(nn.DataParallel(model), dataset), predict(model, dataset), tolerance=0)


def test_workers_change_nothing() -> None:
    found = predict(Echo(), SortedPictures(MIXED), workers=2)
    assert [int(one.labels) for one in found] == list(range(len(MIXED)))


def test_a_worker_passes_a_data_error_on() -> None:
    with pytest.raises(DataError, match=r"^a.jpg: no image$"):
        predict(Echo(), BrokenPictures(MIXED), workers=1)


def test_limits_reach_the_network() -> None:
    limits = DetectionLimits(0.3, 0.4, None, 7, True)
    network = Echo()
    predict(network, Pictures([WIDE]), limits)
    assert network.limits == [limits]


def test_autocast_leaves_detections_float32(model) -> None:
    (found,) = predict(model, Pictures([WIDE]), autocast=torch.bfloat16)
    (exact,) = predict(model, Pictures([WIDE]))
    assert found.scores.dtype == found.boxes.dtype == torch.float32
    assert abs(float(found.scores[0] - exact.scores[0])) < 0.02
    assert not torch.equal(found.boxes, exact.boxes)


def test_a_model_still_learns_afterwards(model) -> None:
    # What the network caches by image size must not be an inference tensor.
    dataset = Pictures([(96, 96)])
    predict(model, dataset)
    annotations = torch.tensor([[[10.0, 10.0, 60.0, 60.0, 1.0]]])
    losses = model.train()([dataset[0]["img"].permute(2, 0, 1)[None], annotations])
    sum(losses).sum().backward()
    assert model.conv1.weight.grad is not None
    model.zero_grad()


def test_no_images() -> None:
    assert predict(Echo(), Pictures([])) == []
