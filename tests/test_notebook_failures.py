"""A rank fails while a notebook runs: one readable message, nothing left, and the next cell works.

`test_ranks_failures` has the same ways at the level of `run_ranks`. Here a learner's notebook runs
in a real kernel, one after the other: a training with our data parallelism in which rank 1 has an
accident at its second step, then a good one with our FSDP.
"""

import ast
import re
from pathlib import Path

import pytest

from tests import notebook_cells as cells
from tests.notebook_kernel import Notebook, errors_of, left_as_found, printed
from tests.rank_processes import gone

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
SLOW = ("interrupts itself", "asks", "leaves the group", "is ended", "computes in C", "is stopped")
SLOW += ("prints for ever", "another type")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A notebook, and what one process computes."""
    notebook = Notebook(tmp_path_factory.mktemp("notebook"))
    notebook.run(cells.SET_UP)
    yield notebook, ast.literal_eval(printed(notebook.run(cells.TRAIN)))[0]
    notebook.close()


@pytest.fixture
def notebook(opened):
    """After each test: no rank, no file, no port is left, and the next cell computes the same."""
    notebook, losses = opened
    with left_as_found(notebook, cells.TRAIN_WELL, [pytest.approx(losses, rel=1e-3)] * 2):
        yield notebook
    assert not printed(notebook.node.cells[-1], "stderr")


def message_of(cell, says=""):
    """The one error of a cell; `says` is the pattern of all that it prints."""
    assert re.fullmatch(says, printed(cell)) and not printed(cell, "stderr"), cell.outputs
    (error,) = errors_of(cell)
    assert error.ename == "RankError" and error.traceback == [f"RankError: {error.evalue}"]
    return error.evalue


def ways(scenarios):
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow if name in SLOW else ()) for name in scenarios]


@pytest.mark.parametrize("way", ways(cells.RAISES))
def test_a_rank_that(notebook, way):
    lines, what, advice = cells.RAISES[way]
    says = {"prints a gigabyte": r"\[rank 1\] \(more was .*\)\n", "leaves a child": r".* \d+\n"}
    cell = notebook.run(cells.with_accident(lines))
    story = f"rank 1 failed first: {what}{cells.place_of(lines)}"
    message = message_of(cell, says.get(way, ""))
    assert message.startswith(story + advice + "\n" * bool(advice))
    assert re.search(r"\nrank 0 (waited|fell with it) in ", message)
    assert message.endswith(cells.WAITED)
    if way == "leaves a child":
        assert gone({int(printed(cell).split()[-1])})


def test_a_tensor_larger_than_the_machine(notebook):
    message = message_of(notebook.run(cells.with_accident("torch.empty(10**15)")))
    first, *_ = message.split("\n")
    assert first.startswith("rank 1 failed first: RuntimeError: ") and "allocate memory" in first
    assert f"\n{cells.NO_MEMORY}\nrank 0 waited in " in message


@pytest.mark.parametrize("way", ways(cells.DIES))
def test_a_rank_that_suddenly(notebook, way):
    lines, what = cells.DIES[way]
    message = message_of(notebook.run(cells.with_accident(lines)))
    assert message == f"rank 1 {what}\nrank 0 fell with it in {cells.WAITED}"


@pytest.mark.parametrize("way", ways(cells.HANGS))
def test_a_rank_that_for_ever(notebook, way):
    lines, what = cells.HANGS[way]
    says = r"(\[rank 1\] x+\n)+\[rank 1\] \(more was printed; .*\)\n"
    cell = notebook.run(cells.with_accident(lines, cells.LIMIT_S))
    message = message_of(cell, says if way == "prints for ever" else "")
    assert message.startswith(f"{cells.LATE}rank 1 {what}") and message.endswith(cells.LONGER)


@pytest.mark.parametrize("way", ways(cells.DISAGREES))
def test_ranks_that_disagree_by(notebook, way):
    lines, what = cells.DISAGREES[way]
    assert message_of(notebook.run(cells.with_accident(lines))).startswith(what)


def test_ranks_of_different_shapes_and_a_rank_with_one_collective_less(notebook):
    shapes = "def sums(rank, world_size):\n    dist.all_reduce(torch.ones(4 + rank))\n\n"
    called = "rank {0} called all_reduce of {1} float32 values, line 2 of sums: "
    message = message_of(notebook.run(f"{shapes}run_ranks(sums, 2)"))
    assert message.startswith(f"{cells.DO_NOT_FIT}(SIGABRT).\n{called.format(0, 4)}")
    assert called.format(1, 5) in message and message.endswith(cells.AGREE)
    fewer = "run_ranks(lambda rank, world_size: train(rank, world_size, 'fsdp', None, 3 - rank), 2)"
    message = message_of(notebook.run(fewer))
    assert message == (
        f"{cells.STUCK}rank 0 waited in all_gather of 40 float32 values, line 15 of train: "
        f"`loss = model(mine_BD).square().mean()`.\nrank 1 had finished.{cells.AGREE}"
    )


def test_what_cannot_travel(notebook):
    result = "run_ranks(lambda rank, world_size: [rank, threading.Lock()] if rank else rank, 2)"
    assert message_of(notebook.run(result)) == (
        "rank 1 returned what cannot be sent back: the value holds an object of type _thread.lock; "
        "files, locks and generators must be made inside the worker, and results be plain data.\n"
        "rank 0 had finished."
    )
    (error,) = errors_of(notebook.run("lock = threading.Lock()\nrun_ranks(lambda r, w: lock, 2)"))
    assert error.ename == "TypeError" and error.evalue == (
        "Not everything can be sent to the ranks: `lock`, used by the worker, is an object of type "
        "_thread.lock; files, locks and generators must be made inside the worker, and results be "
        "plain data."
    )


@pytest.mark.slow
def test_the_server_that_ranks_come_from_is_killed(notebook):
    """As the system may do when memory runs out; it takes the ranks with it."""
    lines = "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1000)"
    first, second = message_of(notebook.run(cells.with_accident(lines))).split("\n")
    assert first.startswith("rank ") and second.startswith("rank ")
    assert first.endswith(
        "was killed (SIGKILL); if nobody did that, the machine had no memory left."
    )
