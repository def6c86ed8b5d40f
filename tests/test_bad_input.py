"""Rubbish in: an error that names the culprit and a remedy, or training that copes with it.

Each row of bad_data.py and bad_runs.py breaks one thing of a run of train_net.py that would
otherwise work, and has the message that its user gets (a regular expression), or TRAINS.
"""

import re

import bad_data
import bad_runs
import pytest

ROWS = {**bad_data.ROWS, **bad_runs.ROWS}


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
