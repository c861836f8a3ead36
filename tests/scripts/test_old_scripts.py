"""Programs written for the original: its names, its order of transforms, its loops."""

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import transforms

from retinanet import coco_eval, csv_eval, model
from retinanet.anchors import Anchors
from retinanet.backbone import BasicBlock, Bottleneck
from retinanet.data.batches import AspectRatioBasedSampler, collater
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.data.transforms import Augmenter, Normalizer, Resizer, UnNormalizer
from retinanet.utils import BBoxTransform, ClipBoxes
from retinanet.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train_images=4, val_images=2)


def old_transforms(*, augment: bool) -> transforms.Compose:
    """Normalise first, resize last: the slow order, which must be as right as any."""
    steps = [Normalizer(), Augmenter(), Resizer(64, 96)]
    return transforms.Compose(steps if augment else steps[::2])


@pytest.mark.parametrize("kind", ["coco", "csv"])
def test_training_script(
    sample: SampleData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    if kind == "coco":
        dataset_train = CocoDataset(
            sample.coco_root, set_name="train2017", transform=old_transforms(augment=True)
        )
        dataset_val = CocoDataset(
            sample.coco_root, set_name="val2017", transform=old_transforms(augment=False)
        )
    else:
        dataset_train = CSVDataset(
            train_file=sample.csv_train,
            class_list=sample.csv_classes,
            transform=old_transforms(augment=True),
        )
        dataset_val = CSVDataset(
            train_file=sample.csv_val,
            class_list=sample.csv_classes,
            transform=old_transforms(augment=False),
        )
    sampler = AspectRatioBasedSampler(dataset_train, batch_size=2, drop_last=False)
    dataloader_train = DataLoader(
        dataset_train, num_workers=0, collate_fn=collater, batch_sampler=sampler
    )

    retinanet = model.resnet18(num_classes=dataset_train.num_classes(), pretrained=False)
    retinanet = nn.DataParallel(retinanet)
    retinanet.training = True
    optimizer = optim.Adam(retinanet.parameters(), lr=1e-5)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
    loss_hist: collections.deque[float] = collections.deque(maxlen=500)

    retinanet.train()
    retinanet.module.freeze_bn()
    epoch_loss = []
    for data in dataloader_train:
        optimizer.zero_grad()
        classification_loss, regression_loss = retinanet([data["img"].float(), data["annot"]])
        assert classification_loss.shape == regression_loss.shape == (1,)
        loss = classification_loss.mean() + regression_loss.mean()
        if bool(loss == 0):
            continue
        loss.backward()
        nn.utils.clip_grad_norm_(retinanet.parameters(), 0.1)
        optimizer.step()
        loss_hist.append(float(loss))
        epoch_loss.append(float(loss))
    assert len(epoch_loss) == 2
    if kind == "coco":
        coco_eval.evaluate_coco(dataset_val, retinanet)
        assert "Average Precision" in capsys.readouterr().out
    else:
        found = csv_eval.evaluate(dataset_val, retinanet)
        assert set(found) == {0, 1, 2, 3}
        assert all(len(pair) == 2 for pair in found.values())
    scheduler.step(np.mean(epoch_loss))

    torch.save(retinanet.module, tmp_path / "module.pt")
    retinanet.eval()
    torch.save(retinanet, tmp_path / "model_final.pt")
    for name in ("module.pt", "model_final.pt"):
        weights = load_checkpoint(tmp_path / name).weights
        assert torch.equal(weights["conv1.weight"], retinanet.module.conv1.weight)


def test_drawing_script(sample: SampleData) -> None:
    dataset_val = CSVDataset(
        sample.csv_val, sample.csv_classes, transform=old_transforms(augment=False)
    )
    sampler_val = AspectRatioBasedSampler(dataset_val, batch_size=1, drop_last=False)
    dataloader_val = DataLoader(
        dataset_val, num_workers=1, collate_fn=collater, batch_sampler=sampler_val
    )
    retinanet = model.resnet18(num_classes=4)
    nn.init.constant_(retinanet.classificationModel.output.bias, 1.0)  # so that it sees something
    retinanet = nn.DataParallel(retinanet)
    retinanet.training = False
    retinanet.eval()
    unnormalize = UnNormalizer()
    for data in dataloader_val:
        with torch.no_grad():
            scores, classification, transformed_anchors = retinanet(data["img"].float())
        idxs = np.where(scores.cpu() > 0.5)
        assert len(idxs[0]) > 0
        img = np.array(255 * unnormalize(data["img"][0, :, :, :])).copy()
        assert -1 < img.min()
        assert img.max() < 256
        assert transformed_anchors[idxs[0][0], :].shape == (4,)
        assert dataset_val.labels[int(classification[idxs[0][0]])] in dataset_val.classes


def test_single_image_loop(sample: SampleData) -> None:
    """The loop of the original's COCO evaluation: one sample, its `scale`, HWC images."""
    dataset = CocoDataset(sample.coco_root, "val2017", old_transforms(augment=False))
    retinanet = model.resnet18(num_classes=dataset.num_classes()).eval()
    nn.init.constant_(retinanet.classificationModel.output.bias, 1.0)
    data = dataset[0]
    with torch.no_grad():
        _, labels, boxes = retinanet(data["img"].permute(2, 0, 1).float().unsqueeze(dim=0))
    boxes = boxes / data["scale"]
    _, width = dataset.image_size(0)
    assert boxes[:, 2].max() < 1.4 * width  # the padding may stick out, as before
    assert dataset.label_to_coco_label(int(labels[0])) in dataset.coco_labels_inverse
    assert dataset.coco.getAnnIds(imgIds=dataset.image_ids[0]) is not None


def test_building_blocks_by_their_old_path() -> None:
    image = torch.zeros(1, 3, 64, 96)
    anchors = Anchors()(image)
    boxes = BBoxTransform()(anchors, torch.zeros_like(anchors))
    assert torch.allclose(boxes, anchors, atol=1e-4)
    clipped = ClipBoxes()(boxes, image)
    assert clipped[..., 0::2].max() == 96
    assert clipped[..., 1::2].max() == 64
    assert (BasicBlock.expansion, Bottleneck.expansion) == (1, 4)
