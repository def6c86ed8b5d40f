"""What the installed Detectron2 has to do, whichever it is: v0.5 needs its repairs for it."""

import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MapDataset, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import cross_entropy
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, BoxMode, Instances
from torch import nn


@META_ARCH_REGISTRY.register()
class OneLinear(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs):
        return {"loss": self.linear(torch.ones(1, 3)).pow(2).sum()}


class OneLinearTrainer(DefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return torch.utils.data.DataLoader([0] * 100)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 4)


def train_one_linear(output, iterations, resume=False):
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "OneLinear"])
    cfg.merge_from_list(["SOLVER.MAX_ITER", iterations, "OUTPUT_DIR", str(output)])
    output.mkdir(exist_ok=True)  # default_setup's part
    torch.manual_seed(0)
    trainer = OneLinearTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer.model.linear.weight


def test_a_resumed_run_keeps_momentum_and_torchs_own_schedule(tmp_path):
    """3 iterations, then 3 more, are 6: the rate falls after the 4th, so both states count."""
    at_once = train_one_linear(tmp_path / "at_once", 6)
    train_one_linear(tmp_path / "resumed", 3)
    assert torch.equal(train_one_linear(tmp_path / "resumed", 6, resume=True), at_once)


def test_a_mapper_may_skip_an_image():
    data = MapDataset([0, 1, 2], lambda item: item if item == 2 else None)
    assert [data[index] for index in range(3)] == [2, 2, 2]


def test_the_coco_evaluator_runs_with_its_defaults(tmp_path):
    """One object, one detection of exactly its box: AP 100."""
    box = [10.0, 10.0, 50.0, 40.0]
    annotation = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    image = {"file_name": "", "image_id": 1, "height": 100, "width": 120}
    DatasetCatalog.register("one_box", lambda: [{**image, "annotations": [annotation]}])
    MetadataCatalog.get("one_box").thing_classes = ["thing"]
    evaluator = COCOEvaluator("one_box", output_dir=str(tmp_path))
    evaluator.reset()
    detection = Instances((100, 120), pred_boxes=Boxes([box]), scores=torch.ones(1))
    detection.pred_classes = torch.zeros(1, dtype=torch.int64)
    evaluator.process([image], [{"instances": detection}])
    assert round(evaluator.evaluate()["bbox"]["AP"], 6) == 100
    DatasetCatalog.remove("one_box")
    MetadataCatalog.remove("one_box")


def test_cross_entropy_reduces_as_asked():
    losses = cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1]), reduction="none")
    assert losses.shape == (3,)
