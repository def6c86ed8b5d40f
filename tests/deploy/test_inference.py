"""At inference nothing of the nRPN runs, and everything else is stock Detectron2's."""

from collections import Counter

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import TWO_OBJECTS, batch, instances, small_cfg
from torch.utils._python_dispatch import TorchDispatchMode

from nrpn_d2.deploy.export import stock_weights


def count_calls(model, prefix):
    """Return a Counter that goes up by one whenever a module under ``prefix`` runs."""
    calls = Counter()
    modules = [m for name, m in model.named_modules() if name.startswith(prefix)]
    assert modules
    for module in modules:
        module.register_forward_hook(lambda m, *_: calls.update([type(m).__name__]))
    return calls


class Operations(TorchDispatchMode):
    """Record the names and input shapes of all operations, in order."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append((str(func), [tuple(a.shape) for a in args if torch.is_tensor(a)]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
@pytest.mark.parametrize("meta_architecture", ["GeneralizedRCNN", "ProposalNetwork"])
def test_nothing_of_the_nrpn_runs(backbone, meta_architecture, share):
    model = build_model(small_cfg(backbone, meta_architecture, MODEL__NRPN__SHARE_FEATURES=share))
    calls = count_calls(model, "proposal_generator.negative_rpn")
    inputs = batch(instances(TWO_OBJECTS))
    with EventStorage():
        model(inputs)
    in_training = calls.total()
    assert in_training > 2  # the hooks do count
    model.eval()
    with torch.no_grad():
        model(inputs)
    assert calls.total() == in_training


@pytest.mark.parametrize("sampler", ["Random", "NRPN"])
@pytest.mark.parametrize("backbone", ["vgg", "fpn"])
def test_same_as_stock(backbone, sampler):
    """The same outputs, by the same operations on tensors of the same shapes."""
    cfg = small_cfg(backbone, MODEL__RPN__NEGATIVE_SAMPLER__NAME=sampler)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0  # some detections, whatever the weights
    model = build_model(cfg).eval()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    stock = build_model(cfg).eval()
    stock.load_state_dict(stock_weights(model), strict=True)
    inputs, operations, outputs = batch(instances(TWO_OBJECTS), instances([])), [], []
    for network in (model, stock):
        with torch.no_grad(), Operations() as seen:
            outputs.append([x["instances"] for x in network(inputs)])
        operations.append(seen.seen)
    assert len(operations[0]) > 100
    assert operations[0] == operations[1]
    for found, expected in zip(*outputs):
        assert len(found) > 0
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)
