"""A kernel that is killed, restarted or shut down while the trainer it started trains.

The ranks end, the folder keeps its last good state, and another kernel goes on from there to the
same losses. `test_notebook_restarts` does it to ranks without a folder.
"""

import os
import signal
from pathlib import Path

import pytest

from tests import notebook_cells as cells
from tests.notebook_kernel import Notebook, errors_of
from tests.rank_processes import gone, left_in
from utils.trainer.folder import checkpoints
from utils.trainer.log import read_log
from utils.trainer.state import read_about

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc"),
    pytest.mark.slow,
]
STEPS = 400


@pytest.fixture
def notebook(tmp_path):
    """A notebook that can start ranks."""
    notebook = Notebook(tmp_path)
    notebook.run(cells.SET_UP)
    yield notebook
    notebook.close()


def end(notebook, way):
    """As the system does when memory runs out, as JupyterLab's restart, or as its shutdown."""
    if way == "kernel is killed":
        os.kill(notebook.pid, signal.SIGKILL)
    elif way == "shutdown":
        notebook.manager.shutdown_kernel(restart=True)  # its settings are kept for the next one


@pytest.mark.parametrize("way", ["kernel is killed", "restart", "shutdown"])
def test_the_trainer_goes_on_from_its_last_good_state(notebook, tmp_path, way):
    notebook.begin(cells.with_trainer(tmp_path, steps=STEPS))
    before = {notebook.pid, *notebook.started()}
    assert len(before) >= 4  # torchrun and its ranks
    end(notebook, way)
    assert way == "restart" or (gone(before, within_s=30) and not left_in(notebook.temporary))
    notebook.restart(now=way != "restart")
    assert gone(before, within_s=30)
    folder = tmp_path / "run"
    killed = read_log(folder)
    assert not killed.is_finished and read_about(checkpoints(folder)[0])["step"] >= 5
    notebook.run_again()
    assert not errors_of(notebook.run(cells.with_trainer(tmp_path, "--resume", steps=STEPS)))
    log = read_log(folder)
    resumed_from = log.start["resumed_from"]
    assert log.is_finished and len(log.losses) == STEPS and resumed_from >= 5
    assert log.losses[:resumed_from] == killed.losses[:resumed_from]
