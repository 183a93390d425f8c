"""A check in a real IPython kernel: the learner's line, a stopped loop, the stop button."""

import os
import sys
import time
from pathlib import Path

import pytest
from jupyter_client import KernelManager

ROOT = Path(__file__).resolve().parents[1]
SET_UP = """
from utils.checks import check, engine, exercise, judge
engine._load_labs = lambda: None
exercise("07.1", "run", seconds=0.5)(lambda answer: str(answer()))
exercise("07.2", "run long", seconds=1000)(lambda answer: str(answer()))
"""
LOOP = "def endless():\n    while True:\n        pass\n"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    manager = KernelManager()
    manager.kernel_spec.argv[0] = sys.executable
    settings = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder)}
    settings["COURSE_PROGRESS"] = str(folder / "progress.json")
    manager.start_kernel(env={**os.environ, **settings}, cwd=folder)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    run(client, SET_UP)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code, interrupt=False):
    """Run one cell and return what it printed and the name of its error, if any."""
    printed, request = [], client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
            if interrupt and "begin" in content["text"]:
                time.sleep(0.2)  # well inside the check
                client.parent.interrupt_kernel()
        elif message["msg_type"] == "error":
            printed.append(content["ename"])
        elif content.get("execution_state") == "idle":
            return "".join(printed)


def test_the_learners_line_of_a_cell_is_shown(client):
    printed = run(client, "def f():\n    x = None\n    return x + 1\ncheck('07.1', f)")
    assert printed == (
        "07.1 run: your code raised TypeError: unsupported operand type(s) for +: 'NoneType' and\n"
        "'int' (line 3 of your function: `return x + 1`).\n"
    )


def test_an_endless_loop_is_stopped_and_the_kernel_goes_on(client):
    printed = run(client, LOOP + "check('07.1', endless)")
    assert printed.startswith("07.1 run: stopped. Your code was still running after 0.5 s")
    assert run(client, "check('07.1', lambda: 3)") == "07.1 run: passed. 3\n"


def test_the_stop_button_ends_a_check(client):
    printed = run(client, LOOP + "print('begin')\ncheck('07.2', endless)", interrupt=True)
    assert printed == "begin\nKeyboardInterrupt"
    threads = "import threading\nprint([t for t in threading.enumerate() if t.name == 'check'])"
    assert run(client, threads) == "[]\n"
    assert run(client, "check('07.2', lambda: 3)") == "07.2 run long: passed. 3\n"
