"""A training leaves a page, however it ends; and a page that fails ends no training."""

import json
import logging

import pytest

from nrpn_d2.engine import run_page


@pytest.fixture
def run(run):
    run.options["DATASETS.TEST"] = "('own_train',)"
    run.options.update({"SOLVER.MAX_ITER": "2", "TEST.EVAL_PERIOD": "1"})
    return run


def record(folder):
    return json.loads((folder / "run.json").read_text())


def files(folder):
    """Without log.txt, to which everything in this process is logged."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: content for name, content in found.items() if name != "log.txt"}


def test_pages_of_a_training_and_of_an_evaluation(run, monkeypatch):
    states = []

    def spy(folder):
        write(folder)
        states.append((run.out / "index.html").read_text().split("</p>")[0].split(">")[-1])

    write = run_page.write_run_page
    monkeypatch.setattr(run_page, "write_run_page", spy)
    run.train()
    assert states == [
        "No iteration is logged yet",
        "Evaluated, not trained",  # the scalars are written every 20 iterations
        "Finished: 2 iterations",
    ]
    page = (run.out / "index.html").read_text()
    assert "Results on own_train" in page and "Worst images of own_train" in page
    assert record(run.out).keys() >= {"command", "commit", "versions", "started", "ended"}
    assert "torch" in record(run.out)["versions"] and record(run.out)["training_images"] == 1

    before = files(run.out)
    run.flags.append("--eval-only")
    run.options["MODEL.WEIGHTS"] = str(run.out / "model_final.pth")
    run.train()
    assert files(run.out) == before
    assert "Results on own_train" in (run.out / "inference" / "index.html").read_text()


def test_a_page_at_each_checkpoint(run, monkeypatch):
    folders = []
    monkeypatch.setattr(run_page, "write_run_page", folders.append)
    run.options |= {"TEST.EVAL_PERIOD": "0", "SOLVER.CHECKPOINT_PERIOD": "1"}
    run.options["SOLVER.MAX_ITER"] = "3"
    run.train()
    assert len(folders) == 4  # at the start, at two checkpoints, and at the end


@pytest.mark.parametrize("broken", ["page", "record"])
def test_a_page_that_fails_ends_no_training(run, monkeypatch, caplog, broken):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(run_page, "write_run_page" if broken == "page" else "atomic_open", fail)
    with caplog.at_level(logging.ERROR):
        run.train()
    run.check_it_has_trained()
    assert "could not be written" in caplog.text and "the disk is full" in caplog.text


def test_a_training_that_stops_says_why(run):
    run.options.update({"SOLVER.BASE_LR": "1e30", "SOLVER.WARMUP_ITERS": "0"})
    run.options["TEST.EVAL_PERIOD"] = "0"
    with pytest.raises(SystemExit):
        run.train()
    assert "losses are not finite" in record(run.out)["error"]
    assert "Stopped by an error: Iteration 1" in (run.out / "index.html").read_text()
