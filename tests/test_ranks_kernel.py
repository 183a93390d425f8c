"""Ranks started from cells of a real IPython kernel."""

import os
import sys
import time
from pathlib import Path

import pytest
from jupyter_client import KernelManager

from tests.rank_processes import descendants, gone, left_in, ranks

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
ROOT = Path(__file__).resolve().parents[1]
SET_UP = "import time, torch, torch.distributed as dist\nfrom utils.ranks import run_ranks"
DEFINED_HERE = """
SCALE = 3
class Box:
    pass
def worker(rank, world_size):
    box = Box()
    box.x = torch.ones(2) * rank * SCALE
    dist.all_reduce(box.x)
    print("rank", rank, "has", box.x.tolist())
    return box
boxes = run_ranks(worker, 3)
print(type(boxes[2]) is Box, boxes[2].x.tolist())
"""
FAILS = """
def worker(rank, world_size):
    if rank == 1:
        x = None
        return x + 1
    dist.barrier()
run_ranks(worker, 2)
"""
MESSAGE = """\
rank 1 failed first: TypeError: unsupported operand type(s) for +: 'NoneType' and 'int'
  line 4 of worker: `return x + 1`
rank 0 waited in barrier, line 5 of worker: `dist.barrier()`."""


@pytest.fixture
def kernel(tmp_path):
    (temporary := tmp_path / "temporary").mkdir()
    manager = KernelManager()
    manager.kernel_spec.argv[0] = sys.executable
    settings = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), "TMPDIR": str(temporary)}
    manager.start_kernel(env={**os.environ, **settings}, cwd=tmp_path)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    run(client, SET_UP)
    yield manager, client
    client.stop_channels()
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


def run(client, code, interrupt=False):
    """Run one cell: what it printed by stream, and its error's message and traceback."""
    printed, request = {"stdout": "", "stderr": ""}, client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            printed[content["name"]] += content["text"]
            if interrupt and "begin" in content["text"]:
                time.sleep(0.3)
                client.parent.interrupt_kernel()
        elif message["msg_type"] == "error":
            printed |= {"error": content["evalue"], "name": content["ename"]}
            printed["traceback"] = content["traceback"]
        elif content.get("execution_state") == "idle":
            return printed


def process_of(manager):
    return manager.provisioner.process.pid


def test_a_notebooks_functions_run_and_its_failures_are_readable(kernel, tmp_path):
    manager, client = kernel
    lines = [f"[rank {rank}] rank {rank} has [9.0, 9.0]" for rank in range(3)]
    expected = "\n".join([*lines, "True [9.0, 9.0]", ""])
    assert run(client, DEFINED_HERE) == {"stdout": expected, "stderr": ""}
    shown = run(client, FAILS)
    assert shown["error"] == MESSAGE and shown["name"] == "RankError"
    assert shown["traceback"] == [f"RankError: {MESSAGE}"]
    shown = run(client, "print('begin')\nrun_ranks(lambda r, w: time.sleep(1000), 2)", True)
    assert (shown["stdout"], shown["stderr"]) == ("begin\n", "")
    assert shown["name"] == "KeyboardInterrupt" and not ranks(process_of(manager))
    assert run(client, "print(run_ranks(lambda r, w: r, 2))")["stdout"] == "[0, 1]\n"
    left = descendants(process_of(manager))
    client.shutdown()  # as JupyterLab's menu does it
    assert gone(left | {process_of(manager)}) and not left_in(tmp_path / "temporary")


def test_a_killed_kernel_takes_its_ranks_along(kernel, tmp_path):
    manager, client = kernel
    client.execute("run_ranks(lambda rank, world_size: sum(range(10**13)), 2)")
    deadline = time.monotonic() + 60
    while len(ranks(process_of(manager))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    below = descendants(process_of(manager))
    assert len(below) == 4  # two ranks, their server, multiprocessing's tracker
    manager.shutdown_kernel(now=True)  # kills the kernel's whole process group
    assert gone(below)
    assert not left_in(tmp_path / "temporary")
