"""Two runs in one folder: the second is refused, until the first one's process is gone."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from nrpn_d2.engine.run_folder import claim, release

HOLD = "import sys; from nrpn_d2.engine.run_folder import claim; claim(sys.argv[1]); print('held');"


@pytest.fixture
def folder(tmp_path):
    yield str(tmp_path / "out")
    release(str(tmp_path / "out"))


def test_held_by_another_process_until_that_is_killed(folder, process_environment):
    """Also if it has forked another one, such as a data loader's, which goes on for a while."""
    fork = "import os; os.fork() == 0 and os.setsid(); sys.stdout.flush(); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD + fork, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=process_environment,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="in use by another run") as error:
        claim(folder)
    assert f"host {socket.gethostname()}, process {holder.pid})" in str(error.value)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    claim(folder)
    holder.stdin.close()  # ends the forked process


def test_the_same_process_may_claim_it_again(folder):
    claim(folder)
    claim(folder)
    release(folder)
    assert open(f"{folder}/.lock").read() == f"host {socket.gethostname()}, process {os.getpid()}\n"


def test_file_system_without_locks(folder, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    claim(folder)
    assert "without locks (No locks available): nothing keeps a second run out" in caplog.text
