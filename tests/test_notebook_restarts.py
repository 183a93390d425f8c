"""A kernel that is restarted or killed while its ranks run: they end, files stay good, it goes on.

`test_ranks_kernel` has the bare case; here a whole notebook runs again afterwards. What is killed
while it writes is the progress file, at each point of writing and at random.
"""

import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import notebook_cells as cells
from tests.notebook_kernel import ROOT, Notebook, errors_of, printed
from tests.rank_processes import gone, left_in
from utils.checks import state

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
ENDLESS = "print('begin')\nrun_ranks(lambda r, w: train(r, w, 'ours', steps=10**9), 2)"


@pytest.fixture
def notebook(tmp_path):
    """A notebook whose ranks have trained once."""
    notebook = Notebook(tmp_path)
    for source in (cells.SET_UP, cells.TRAIN, cells.TRAIN_WELL):
        notebook.run(source)
    yield notebook
    notebook.close()


def wait_for_ranks(notebook, number):
    end_s = time.monotonic() + 60
    while len(notebook.started()) < number:
        assert time.monotonic() < end_s, "the ranks did not start"
        time.sleep(0.02)


def runs_to_its_end(notebook):
    """All cells again in a fresh kernel: no error, the same numbers."""
    *_, one, two = notebook.run_again()
    assert not any(map(errors_of, notebook.node.cells)) and not notebook.stray
    losses = ast.literal_eval(printed(one))[0]
    assert ast.literal_eval(printed(two)) == [pytest.approx(losses, rel=1e-3)] * 2


@pytest.mark.parametrize("now", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_restart_in_mid_run(notebook, now):
    notebook.begin(ENDLESS)
    wait_for_ranks(notebook, 2)
    before = {notebook.pid, *notebook.started()}
    notebook.restart(now)
    assert gone(before, within_s=30) and not left_in(notebook.temporary)
    runs_to_its_end(notebook)


WRITER = """
import os, signal, sys
from utils.checks import state
def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
{how}
print("begin", flush=True)
for number in range(10**9):
    state.record(f"02.{{number % 99}}", ("passed", "not yet")[number % 2])
"""
POINTS = {
    "before the text": "state.json.dumps = die",
    "before the disk has it": "os.fsync = die",
    "before it takes the name": "os.replace = die",
    "when it has the name": "plain = os.replace\nos.replace = lambda *a: die(plain(*a))",
}


def killed_writer(path, how, delay_s=None):
    """A process that stores progress, killed at a point or after a while."""
    environment = {**os.environ, "COURSE_PROGRESS": str(path), "PYTHONPATH": str(ROOT)}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(how=how)], env=environment, stdout=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"begin\n"
    if delay_s is not None:
        time.sleep(delay_s)
        writer.kill()
    assert writer.wait(60) == -signal.SIGKILL
    writer.stdout.close()


def is_good(path, key):
    """What was stored can be read, the next check stores more, and nothing lies beside it."""
    stored, trouble = state.read(path)
    assert trouble == "" and stored["01.1"] == "passed"
    assert state.record(key, "passed", path) == ""
    assert json.loads(path.read_text())["exercises"] == {**stored, key: "passed"}
    return sorted(each.name for each in path.parent.iterdir())


@pytest.mark.parametrize("point", POINTS)
def test_progress_survives_a_kernel_killed_at(point, tmp_path):
    path = tmp_path / "progress.json"
    state.record("01.1", "passed", path)
    killed_writer(path, POINTS[point])
    assert is_good(path, "01.2") == ["progress.json", "progress.json.lock"]


@pytest.mark.slow
def test_progress_survives_a_kernel_killed_at_any_moment(tmp_path):
    path, chance = tmp_path / "progress.json", random.Random(8)
    state.record("01.1", "passed", path)
    for number in range(2, 12):
        killed_writer(path, "", chance.uniform(0, 0.2))
        assert is_good(path, f"01.{number}") == ["progress.json", "progress.json.lock"]
