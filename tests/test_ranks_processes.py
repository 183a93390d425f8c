"""Nothing is left: no rank, no file, whatever ends the run, the notebook or its kernel."""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.rank_processes import descendants, gone, left_in, ranks
from utils.ranks import crew, member, run_ranks, scratch
from utils.ranks.job import Job
from utils.ranks.scratch import Scratch

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc"),
    pytest.mark.filterwarnings("ignore:.*they take turns"),
]
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import sys, time
from functools import partial
from utils.ranks import crew, run_ranks
from utils.ranks.scratch import Scratch
crew.Scratch = partial(Scratch, nameless={nameless})
def worker(rank, world_size, folder):
    open(f"{{folder}}/{{rank}}", "w").close()
    time.sleep(1000) if rank else {work}
run_ranks(worker, 2, sys.argv[1], start_method="{method}")
"""


def wait_for(condition, within_s=60.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05, 0.3])
def test_an_interrupt_at_any_moment_leaves_no_rank(delay_s):
    run_ranks(lambda rank, world_size: rank, 1)  # the server is then ready
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(delay_s, signal.raise_signal, [signal.SIGINT]).start()
        run_ranks(lambda rank, world_size: time.sleep(1000), 3)
        time.sleep(10)  # the interrupt came before the call
    assert not ranks(os.getpid())
    assert run_ranks(lambda rank, world_size: rank, 2) == [0, 1]


def test_an_interrupt_does_not_wait_for_a_server_that_still_imports(monkeypatch):
    gate, asked = threading.Event(), threading.Event()

    def start(context, job):
        asked.set()
        gate.wait()
        raise EOFError("never a rank")

    monkeypatch.setattr(crew, "start", start)
    monkeypatch.setattr(crew, "FAREWELL_S", 1e6)  # what it would wait for ranks
    starting = crew.Crew(Job(2, "gloo", 60.0, {}, b""), None)
    starting.start()
    asked.wait()
    starting.stop()
    assert starting.is_alive()
    gate.set()
    starting.join()
    assert isinstance(starting.error, EOFError)


def test_a_run_uses_no_file_with_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def files(rank, world_size):
        return os.listdir(tmp_path)

    assert run_ranks(files, 2) == [[], []]
    assert not list(tmp_path.iterdir())


def test_named_files_go_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(crew, "Scratch", functools.partial(Scratch, nameless=False))

    def files(rank, world_size):
        (folder,) = tmp_path.iterdir()
        return sorted(os.listdir(folder))

    assert run_ranks(files, 2) == [["pages", "store"]] * 2
    assert not list(tmp_path.iterdir())


def test_both_kinds_of_files_can_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for nameless in (True, False):
        with Scratch(nameless) as files:
            Path(files.store).write_text("met")
            assert Path(files.store).read_text() == "met" and Path(files.pages).exists()
            assert bool(files.folder) != nameless
        assert not list(tmp_path.iterdir())
    scratch.remove("")  # no folder, nothing to remove


WAYS = {  # the sum lets no other thread run; the second way is that of systems without /proc
    "Linux": {"method": "forkserver", "nameless": True, "work": "sum(range(10**13))"},
    "macOS": {"method": "spawn", "nameless": False, "work": "time.sleep(1000)"},
}


@pytest.mark.parametrize("way", WAYS)
def test_ranks_end_when_their_notebooks_process_is_killed(way, tmp_path):
    (started := tmp_path / "started").mkdir()
    (temporary := tmp_path / "temporary").mkdir()
    code = SCRIPT.format(**WAYS[way])
    settings = {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(started)], env={**os.environ, **settings}
    )
    wait_for(lambda: len(list(started.iterdir())) == 2)
    below = descendants(process.pid)
    assert len(below) >= 3
    process.kill()
    process.wait()
    assert gone(below)
    assert not left_in(temporary)


def test_two_scripts_at_once_need_no_guard_and_are_not_run_again(tmp_path):
    (tmp_path / "script.py").write_text(
        "from utils.ranks import run_ranks\n"
        "print('once')\n"
        "def worker(rank, world_size):\n"
        "    return rank + OFFSET\n"
        "OFFSET = 1\n"
        "print(run_ranks(worker, 2))\n"
    )
    settings = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(
            [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, **settings}, **options
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.communicate(timeout=120) == ("once\n[1, 2]\n", "")
    (tmp_path / "script.py").unlink()
    assert not left_in(tmp_path)


def test_a_server_that_does_not_answer_is_tried_again():
    class Context:
        def __init__(self, failures):
            self.failures = failures

        def Process(self, **options):
            return self

        def get_start_method(self):
            return "spawn"

        def start(self):
            self.failures -= 1
            if self.failures >= 0:
                raise EOFError

    answering = Context(failures=2)
    assert member._started(answering, ()) is answering
    with pytest.raises(RuntimeError, match="restart the kernel"):
        member._started(Context(failures=3), ())
