"""Rubbish in: an error that names the culprit and a remedy, or training that copes with it.

Each row of bad_runs.py breaks one thing of a run of train_net.py that would otherwise work, and has
the message that its user gets (a regular expression), or TRAINS.
"""

import re

import pytest
from bad_runs import ROWS, TRAINS


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(run, name, capsys):
    change, expected = ROWS[name]
    change(run)
    data, checkpoints = run.data_files(), run.checkpoints()
    if expected is TRAINS:
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
