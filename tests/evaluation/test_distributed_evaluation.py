"""Evaluators in two processes (gloo) give what they give in one."""

import json

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp
from registered_dataset import detected, near_boxes, proposals, random_boxes, registered

from nrpn_d2.engine.launch import leave_process_groups
from nrpn_d2.evaluation import (
    ProposalErrorEvaluator,
    ProposalRecallEvaluator,
    VOCDetectionEvaluator,
)
from nrpn_d2.evaluation.evaluator import together

NUM_IMAGES = 8


ALL = (ProposalRecallEvaluator, ProposalErrorEvaluator, VOCDetectionEvaluator)


def evaluate(first, last, kinds=ALL):
    """Return the evaluators' results for images first..last as JSON (in which nan equals nan)."""
    rng = np.random.default_rng(0)
    objects, outputs = [], []
    for _ in range(NUM_IMAGES):
        boxes = random_boxes(rng, 2)
        found = near_boxes(rng, boxes, 30, spread=0.1)
        scores = rng.integers(1, 10, 30) / 10  # equal ones are frequent
        classes = rng.integers(0, 2, 30)
        objects.append([(box, c) for c, box in enumerate(boxes)])
        outputs.append(proposals(found, scores) | detected(found, classes, scores))
    with registered(objects, ["ring", "disc"]) as name:
        evaluators = [kind(name) for kind in kinds]
        for evaluator in evaluators:
            for n in range(first, last):
                evaluator.process([{"image_id": str(n)}], [outputs[n]])
        return json.dumps([evaluator.evaluate() for evaluator in evaluators])


def message_of(function):
    try:
        function()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def evaluate_in_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    results = {
        "all to the first": evaluate(*[(0, NUM_IMAGES), (0, 0)][rank]),
        "all to the second": evaluate(*[(0, 0), (0, NUM_IMAGES)][rank]),
        "shared": evaluate(*[(0, 3), (3, NUM_IMAGES)][rank]),
    }
    results["overlapping"] = message_of(lambda: evaluate(0, 1, [ProposalRecallEvaluator]))
    results["failing"] = message_of(lambda: together([int, lambda: int("x")][rank]))
    with open(f"{folder}/{rank}.json", "w") as f:
        json.dump(results, f)
    dist.barrier()
    leave_process_groups()


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_two_processes_equal_one(tmp_path, process_environment, monkeypatch):
    alone = evaluate(0, NUM_IMAGES)
    for name, value in process_environment.items():
        monkeypatch.setenv(name, value)
    mp.spawn(evaluate_in_process, (str(tmp_path),), nprocs=2)
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert 0 < json.loads(alone)[2]["bbox"]["AP50"] < 100
    for case in ("all to the first", "all to the second", "shared"):
        assert main[case] == alone
        assert other[case] == "[null, null, null]"
    # What is raised on one process is raised on both: none waits for the other
    problem = "ValueError: several processes processed the same images"
    assert main["overlapping"] == problem
    assert other["overlapping"] == f"RuntimeError: process 0 failed in the evaluation: {problem}"
    assert other["failing"].startswith("ValueError: invalid literal")
    assert (
        main["failing"] == f"RuntimeError: process 1 failed in the evaluation: {other['failing']}"
    )
