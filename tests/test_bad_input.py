"""Rubbish in: an error that names the culprit and a remedy, or training that copes with it.

Each row of bad_data.py and bad_runs.py breaks one thing of a run of train_net.py that would
otherwise work, and has the message that its user gets (a regular expression), or TRAINS.
"""

import logging
import re

import bad_data
import bad_runs
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import logger as detectron2_logger
from small_run import Run

from nrpn_d2.data import catalog

ROWS = {**bad_data.ROWS, **bad_runs.ROWS}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that works, in a process that is afterwards as it was before."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(catalog, "_registered", dict(catalog._registered))
    for registry in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(registry, "data", dict(registry.data))
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path)
    run.patch, run.clean_up = monkeypatch, lambda: None
    yield run
    run.clean_up()
    detectron2_logger.setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "nrpn_d2"):
        for handler in logging.getLogger(name).handlers[:]:
            handler.close()
            logging.getLogger(name).removeHandler(handler)


def test_the_tables():
    assert len(ROWS) == len(bad_data.ROWS) + len(bad_runs.ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(run, name, capsys):
    change, expected = ROWS[name]
    change(run)
    data, checkpoints = run.data_files(), run.checkpoints()
    if expected is bad_data.TRAINS:
        run.train()
        run.check_it_has_trained()
    else:
        with pytest.raises(SystemExit) as error:
            run.train()
        run.clean_up()
        message = capsys.readouterr().err + str(error.value)
        assert re.search(expected, message), message
        assert "Traceback" not in message
        assert run.checkpoints() == checkpoints
    run.check_nothing_is_half_written()
    if "while training" not in name:
        assert run.data_files() == data
