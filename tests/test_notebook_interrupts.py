"""The stop button while a notebook's cell runs ranks: at any moment, and the next cell works.

`test_ranks_processes` does it to `run_ranks` itself, `test_checks_kernel` to a check without ranks.
"""

import ast
import random
from pathlib import Path

import pytest

from tests import notebook_cells as cells
from tests.notebook_kernel import Notebook, Stop, errors_of, left_as_found, printed
from tests.rank_processes import ranks
from utils.trainer.folder import checkpoints
from utils.trainer.log import read_log
from utils.trainer.state import read_about

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
ON_RANKS = {
    "compute": "run_ranks(lambda rank, world_size: sum(range(10**13)), 2)",
    "train": "run_ranks(lambda r, w: train(r, w, 'ours', steps=10**9), 2)",
    "wait": (
        "def wait(rank, world_size):\n    while rank:\n        pass\n    dist.barrier()\n\n"
        "run_ranks(wait, 2)"
    ),
    "are checked": (
        "from utils.checks import check\ndef endless(*a, **b):\n    while True: pass\n\n"
        "check('06.4', endless)"
    ),
}
# Struck where an instruction has no line (in Python 3.11 the jump back of a loop whose last
# statement is an `if`), IPython 9 fails to report the interruption, and prints why instead.
NO_LINE = "assert isinstance(frame_info.lineno, int)\nAssertionError\n"
INSTEAD = "Unexpected exception formatting exception. Falling back to standard exception\n"
LIVE = """
from utils.live import Live
with Live("loss") as live:
    for step in range(10**9):
        live.log(step, step / 10**9, loss=step % 7)
        if step == 100:
            print("begin")
"""
MANY = "print('begin')\nfor _ in range(10**9): run_ranks(train, 2, 'ours')"
NO_SERVER = """
from multiprocessing import forkserver
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A notebook, and what two ranks compute."""
    notebook = Notebook(tmp_path_factory.mktemp("notebook"))
    for source in (cells.SET_UP, cells.TRAIN):
        notebook.run(source)
    yield notebook, ast.literal_eval(printed(notebook.run(cells.TRAIN_WELL)))
    notebook.close()


@pytest.fixture
def notebook(opened):
    """After each test: no process, no file, no port is left, and the next cell works."""
    notebook, losses = opened
    with left_as_found(notebook, cells.TRAIN_WELL, losses):
        yield notebook


def is_interrupted(cell, says=""):
    """A cell that ends with KeyboardInterrupt and has printed only this."""
    report = printed(cell, "stderr")
    if not errors_of(cell) and "\nKeyboardInterrupt\n" in report and report.endswith(NO_LINE):
        assert printed(cell).removesuffix(INSTEAD) == says.removesuffix(INSTEAD)
        return True
    assert {each.ename for each in errors_of(cell)} == {"KeyboardInterrupt"}, cell.outputs
    assert (printed(cell), report) == (says, "")
    return True


@pytest.mark.parametrize("way", ON_RANKS)
def test_while_ranks(notebook, way):
    stop = Stop(0.5, when=lambda cell: len(ranks(notebook.pid)) >= 2)
    assert is_interrupted(notebook.run(ON_RANKS[way], stop))


def test_while_a_curve_grows(notebook):
    cell = notebook.run(LIVE, Stop(0.0))
    assert is_interrupted(cell, "begin\n")
    texts = [each.data["text/plain"] for each in cell.outputs if each.output_type == "display_data"]
    assert texts == ["[live] loss: run the cell to watch the curve grow", "[live curve] loss"]


@pytest.mark.slow
def test_while_the_trainer_trains(notebook, tmp_path):
    cell = notebook.run(cells.with_trainer(tmp_path), Stop(0.3))
    assert is_interrupted(cell, printed(cell)) and set(printed(cell).split()) == {"begin"}
    assert len(notebook.stopped) >= 3  # torchrun and its ranks
    assert read_about(checkpoints(tmp_path / "run")[0])["step"] >= 5
    assert not read_log(tmp_path / "run").is_finished


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.2, 2.0, 5.0])
def test_while_the_trainer_starts(notebook, tmp_path, delay_s):
    source = "print('begin')\n" + cells.with_trainer(tmp_path, event="none")
    assert is_interrupted(notebook.run(source, Stop(delay_s)), "begin\n")


@pytest.mark.parametrize("delay_s", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_while_the_server_of_ranks_starts(notebook, delay_s):
    notebook.run(NO_SERVER)
    source = f"print('begin')\n{ON_RANKS['compute']}"
    assert is_interrupted(notebook.run(source, Stop(delay_s)), "begin\n")


@pytest.mark.slow
def test_at_any_moment(notebook):
    chance = random.Random(6)
    for _ in range(10):
        cell = notebook.run(MANY, Stop(chance.uniform(0, 1.5)))
        assert is_interrupted(cell, "begin\n") and not notebook.has_ranks()


@pytest.mark.slow
def test_pressed_again_and_again(notebook):
    """IPython may be struck in its report of the first one, so only what is left counts."""
    chance = random.Random(7)
    for source in (MANY, f"print('begin')\n{ON_RANKS['are checked']}") * 3:
        first_s = chance.uniform(0, 1.5)
        notebook.run(source, Stop(first_s, first_s + 0.05, first_s + 0.3))
        assert not notebook.has_ranks()
        threads = "print([t.name for t in threading.enumerate() if t.name in ('ranks', 'check')])"
        assert printed(notebook.run(threads)) == "[]\n"
