"""What a learner costs: readings of real processes, two notebooks watched, and the sizing."""

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from tests.rank_processes import descendants, gone
from utils import room, room_sizing
from utils.room_meter import JUPYTERLAB, KERNEL, MIB, RANK, SERVER_OF_RANKS, TRACKER, kind_of
from utils.room_sizing import GIB, Cost, Room

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
FORKS = """
import os, sys, time
held = bytearray(os.urandom(64 * 2**20))
if os.fork() == 0:
    time.sleep(100)
print("ready", flush=True)
time.sleep(100)
"""
RANKS = """
import time
from utils.ranks import run_ranks
def worker(rank, world_size):
    held = bytes(bytearray(80 * 2**20))
    time.sleep(2)
run_ranks(worker, 2)
"""
COST = Cost(server_bytes=GIB // 8, peak_bytes=GIB, resting_bytes=GIB // 2, file_bytes=GIB // 4,
            busy_cores=1.5)  # fmt: skip


def notebook(folder, *cells):
    path = folder / "notebook.ipynb"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    nbformat.write(made, path)
    return path


@pytest.mark.parametrize(("command", "parent", "kind"), [
    ("python -m ipykernel_launcher -f x.json", "python -m pytest", KERNEL),
    ("python -m jupyterlab --no-browser", "bash", JUPYTERLAB),
    ("python -c from multiprocessing.forkserver import main", "ipykernel", SERVER_OF_RANKS),
    ("python -c from multiprocessing.forkserver import main", "multiprocessing.forkserver", RANK),
    ("python -c from multiprocessing.spawn import spawn_main", "ipykernel", RANK),
    ("python -c from multiprocessing.resource_tracker import main", "ipykernel", TRACKER),
    ("/usr/bin/python -u -m utils.train --steps 4", "torchrun", "python -m utils.train"),
    ("/usr/bin/lscpu -J", "ipykernel", "lscpu"),
    ("", "ipykernel", "a process that ends"),
])  # fmt: skip
def test_a_process_has_a_name(command, parent, kind):
    assert kind_of(command, parent) == kind


@linux
def test_a_page_that_a_fork_shares_counts_once():
    from utils.room_meter import read_tree

    parent = subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout.readline() == "ready\n"
        both, below = read_tree(parent.pid), read_tree(parent.pid, itself=False)
        assert sum(both.num_processes.values()) == 2 and sum(below.num_processes.values()) == 1
        assert 64 * MIB <= both.total_own_bytes < 100 * MIB
        assert 30 * MIB <= below.total_own_bytes < 60 * MIB  # its half of the pages
        assert both.cpu_s > 0 and both.file_bytes > MIB
    finally:
        for process in [*descendants(parent.pid), parent.pid]:
            os.kill(process, signal.SIGKILL)
        parent.wait()


@linux
@pytest.mark.parametrize("missing", ["RssFile", "Pss_Anon", "Pss"])
def test_a_process_that_ends_while_it_is_read_is_left_out(missing, tmp_path, monkeypatch):
    from utils import room_meter

    folder = tmp_path / "7"
    (folder / "task").mkdir(parents=True)
    sizes = {"Pss": 9, "Pss_Anon": 5, "Pss_Shmem": 1, "RssFile": 3}
    for name, drop in (("whole", ""), ("ending", missing)):
        lines = [f"{key}:  {kib} kB" for key, kib in sizes.items() if key != drop]
        (folder / "smaps_rollup").write_text("\n".join(lines))
        (folder / "status").write_text("Name: x\n")
        (folder / "stat").write_text(f"7 (a) b) S 1 {'0 ' * 9}3 4 0 0 0")
        (folder / "cmdline").write_text("python\0-m\0ipykernel_launcher")
        monkeypatch.setattr(room_meter, "PROC", tmp_path)
        (tmp_path / "1").mkdir(exist_ok=True)
        (tmp_path / "1/cmdline").write_text("init")
        monkeypatch.setattr("utils.grading.tree.descendants", lambda process: [])
        reading = room_meter.read_tree(7)
        whole = name == "whole"
        assert reading.total_own_bytes == 6 * 1024 * whole and reading.cpu_s > 0
        assert reading.num_processes == ({KERNEL: 1} if whole else {})
        assert (reading.file_bytes, reading.pss_bytes) == (3072 * whole, 9216 * whole)


@linux
@pytest.mark.slow
def test_a_learner_with_ranks_is_watched_and_nothing_is_left(tmp_path):
    from utils.room_learner import watch

    before = descendants(os.getpid())
    path = notebook(tmp_path, RANKS, "held = bytearray(150 * 2**20)", "held = None")
    (seen,), pss_bytes = watch(path)
    with_ranks = max(seen.running, key=lambda reading: reading.own_bytes[RANK])
    assert with_ranks.num_processes == {KERNEL: 1, SERVER_OF_RANKS: 1, TRACKER: 1, RANK: 2}
    assert with_ranks.own_bytes[RANK] >= 160 * MIB
    assert seen.peak.total_own_bytes >= seen.resting_bytes >= seen.peak.own_bytes[TRACKER]
    assert seen.resting and all(not each.num_processes[RANK] for each in seen.resting)
    assert seen.cpu_s > 0 and pss_bytes >= seen.peak.total_own_bytes
    lines = room.lines_of("x", seen)
    assert any("1 x kernel: " in line for line in lines) and "CPU seconds" in lines[-1]
    assert not descendants(os.getpid()) - before


@linux
def test_a_notebook_that_fails_is_one_sentence(tmp_path, capsys):
    bad = notebook(tmp_path, "x = 1", "print(missing)")
    with pytest.raises(room.RoomError, match=r"cell 2 \(`print\(missing\)`\).*NameError"):
        room.watch(bad)
    assert room.main([str(tmp_path / "none.ipynb")]) == 1
    assert "There is no notebook" in capsys.readouterr().err


@linux
def test_a_measurement_that_is_ended_leaves_no_process(tmp_path):
    path = notebook(tmp_path, "import time; time.sleep(1000)")
    command = [sys.executable, "-m", "utils.room", str(path)]
    running = subprocess.Popen(command, cwd=room.ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120  # reached only in trouble
    while not _kernels(running.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    below = descendants(running.pid)
    running.send_signal(signal.SIGTERM)
    assert "Interrupted" in running.communicate(timeout=60)[1] and running.returncode == 130
    assert len(below) == 2 and gone(below)


def _kernels(process):
    words = [(each, open(f"/proc/{each}/cmdline").read()) for each in descendants(process)]
    return [each for each, command in words if "ipykernel" in command]


def test_a_room_is_sized_by_its_peak_and_its_cores_by_the_usual_share():
    group = Room(num_learners=30, share=0.3, num_open=2)
    assert group.most_bytes(COST) == GIB // 4 + 30 * (GIB // 8 + GIB + GIB // 2)
    assert group.usual_bytes(COST) == group.most_bytes(COST) - 21 * GIB // 2
    assert group.busy_cores(COST) == pytest.approx(13.5)
    assert room_sizing.num_cores(13.5) == 16 and room_sizing.num_cores(300) == 300
    assert room_sizing.memory_gib(5 * GIB) == 8 and room_sizing.memory_gib(49 * GIB) == 64
    assert room_sizing.slow_down(group, COST, 15) == pytest.approx(3.0)
    assert room_sizing.slow_down(Room(1, 1, 1), COST, 8) == 1.0
    text = "\n".join(room.sizing_lines(group, COST))
    assert "30 learners with 2 open notebooks each" in text and "64 GiB, 16 cores" in text


@pytest.mark.parametrize("words", ["--share 0", "--share 1.5", "--learners 0", "--open many"])
def test_an_impossible_room_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        room.main(words.split())
    assert "usage" in capsys.readouterr().err


def test_other_systems_are_told_why_not(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert room.main([]) == 1
    assert "needs Linux" in capsys.readouterr().err
