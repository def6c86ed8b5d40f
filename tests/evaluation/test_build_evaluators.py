import numpy as np
from detectron2.config import get_cfg
from matplotlib.figure import Figure
from registered_dataset import detected, proposals, registered

from nrpn_d2 import add_nrpn_config
from nrpn_d2.evaluation import EVALUATORS, build_evaluators
from nrpn_d2.evaluation.comparison import compare_runs
from nrpn_d2.evaluation.evaluator import PerImageEvaluator

BOX = [10, 10, 60, 60]


def evaluate(output_dir, *overrides, other_datasets=()):
    cfg = get_cfg()
    add_nrpn_config(cfg)
    cfg.OUTPUT_DIR = str(output_dir)
    cfg.TEST.PROPOSALS.BUDGETS = [2, 4]
    cfg.TEST.PROPOSALS.IOU_THRESHOLDS = [0.6]
    cfg.merge_from_list(list(overrides))
    output = proposals([BOX]) | detected([BOX], [0], [1.0])
    with registered([[(np.array(BOX), 0)]], ["ring"]) as name:
        cfg.DATASETS.TEST = (name, *other_datasets)
        evaluators = build_evaluators(cfg, name)
        evaluators.reset()
        evaluators.process([{"image_id": "0"}], [output])
        return name, evaluators.evaluate()


def test_the_config_names_budgets_and_thresholds(tmp_path):
    _, results = evaluate(tmp_path)
    assert list(results) == ["box_proposals", "proposal_errors", "bbox", "mistakes"]
    assert results["bbox"]["AP50"] == 100
    recalls = [key for key in results["box_proposals"] if key.startswith("R") and "-" not in key]
    assert recalls == [f"R60{size}{at}" for at in ("", "@2", "@4") for size in ("s", "m", "l", "")]
    assert results["proposal_errors"]["hit@4"] == results["proposal_errors"]["hit"] == 100
    assert (tmp_path / "inference" / "results.json").exists()


def test_a_proposal_network_has_no_ap(tmp_path):
    _, results = evaluate(tmp_path, "MODEL.META_ARCHITECTURE", "ProposalNetwork")
    assert list(results) == ["box_proposals", "proposal_errors", "mistakes"]


def test_several_datasets_have_folders_of_their_own(tmp_path):
    name, _ = evaluate(tmp_path, other_datasets=["another"])
    assert (tmp_path / "inference" / name / "results.csv").exists()


class CountEvaluator(PerImageEvaluator):
    """All that a new evaluator needs."""

    figures = {"counts": lambda runs: Figure()}

    @staticmethod
    def compare(results):
        yield "proposals", "as configured", results["counts"]["sum"]

    def _read(self, output, n, origin):
        return len(output["proposals"])

    def _compute(self, records):
        self.curves = {"counts": {"of_images": list(records.values())}}
        return {"counts": {"sum": sum(records.values())}}


def test_a_new_evaluator_is_a_class_and_a_name_in_the_list(tmp_path):
    EVALUATORS.append(CountEvaluator)
    try:
        _, results = evaluate(tmp_path)
        table = compare_runs([str(tmp_path)], str(tmp_path / "comparison"))
    finally:
        EVALUATORS.remove(CountEvaluator)
    assert results["counts"] == {"sum": 1}
    assert (tmp_path / "inference" / "counts.png").exists()
    assert ["proposals", "as", "configured", "1.00"] in [row.split() for row in table.splitlines()]
