"""One experiment apart: rows come back, every failure is one sentence and leaves no process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from utils.experiments.registry import EXPERIMENTS, Experiment, NotHere
from utils.record_apart import Outcome, _read, run_apart, run_here, sentence_of

linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
BAD = Path(__file__).parent / "bad_experiments.py"


@pytest.fixture
def bad(monkeypatch, tmp_path):
    """Experiments that go wrong, under names of their own, in this process and in a child."""
    start = f"import sys; sys.path.insert(0, {str(BAD.parent)!r}); import bad_experiments as b; "
    code = start + "b.register(); from utils.record_apart import main; main(sys.argv[1:])"
    real = subprocess.Popen

    def popen(command, **options):
        if "utils.record_apart" in command:
            command = [sys.executable, "-c", code, *command[3:]]
        return real(command, **options)

    monkeypatch.setattr("utils.record_apart.subprocess.Popen", popen)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # of this process: the child's is below
    yield
    assert not [each.name for each in tmp_path.iterdir() if each.name != "pids"]


def test_rows_come_back_from_a_child(bad, tmp_path):
    outcome = run_apart("fine", "cpu", 60)
    assert outcome.rows == [{"device": "cpu", "threads": 1, "gpus": ""}]
    assert outcome.problem == "" and not outcome.is_failure and outcome.seconds > 0


@pytest.mark.parametrize(
    "name, words, is_failure",
    [
        ("not_here", "needs two GPUs", False),
        ("raises", "failed (KeyError: 'seconds')", True),
        ("no_memory", "ran out of memory", True),
        ("no_rows", "gave no rows", True),
        ("not_json", "ended with code 1 (ValueError: Out of range float values", True),
        ("exits", "ended with code 7 (a last word)", True),
        ("killed", "was killed by the system, most likely for want of memory", True),
    ],
)
def test_every_failure_is_a_sentence(bad, name, words, is_failure):
    outcome = run_apart(name, "cpu", 60)
    assert outcome.rows is None and words in outcome.problem
    assert outcome.is_failure == is_failure and "\n" not in outcome.problem


def gone(pid: int, patience_s: float = 20.0) -> bool:
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def wait_for_lines(path: Path, num_lines: int, patience_s: float = 100.0) -> list[int]:
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= num_lines:
            return [int(line) for line in lines]
        time.sleep(0.05)
    raise AssertionError(f"{path} has not got {num_lines} lines")


@linux
@pytest.mark.parametrize(
    "name, num_processes", [("sleeps", 2), ("sleeps_deaf", 2), ("sleeps_on_ranks", 3)]
)
def test_the_limit_ends_the_child_and_its_children(bad, name, num_processes, tmp_path, monkeypatch):
    """The limit comes when all of them run, however long the machine takes to start them."""
    pids, popen = tmp_path / "pids", subprocess.Popen

    def impatient(command, **options):
        child = popen(command, **options)
        wait = child.wait

        def first_wait(timeout_s):
            child.wait = wait
            wait_for_lines(pids, num_processes)
            raise subprocess.TimeoutExpired(command, timeout_s)

        child.wait = first_wait
        return child

    monkeypatch.setenv("BAD_PIDS", str(pids))
    monkeypatch.setattr("utils.record_apart.subprocess.Popen", impatient)
    outcome = run_apart(name, "cpu", 12)
    assert outcome.is_failure and outcome.problem == "was ended after 12 s, its share of the time"
    assert all(gone(pid) for pid in wait_for_lines(pids, num_processes))


@linux
def test_an_interrupt_ends_the_child(bad, tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    monkeypatch.setenv("BAD_PIDS", str(pids))

    def interrupt():
        wait_for_lines(pids, 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_apart("sleeps", "cpu", 200)
    thread.join()
    assert all(gone(pid) for pid in wait_for_lines(pids, 2))


@linux
def test_a_limit_of_no_time_is_a_failure_too(bad):
    outcome = run_apart("fine", "cpu", 0.0)
    assert outcome.problem.startswith("was ended after 0 s") and outcome.is_failure


def test_here_an_experiment_runs_in_this_process(monkeypatch):
    entry = Experiment("here", "registry", "here", "01", "x", 1, 1)
    monkeypatch.setitem(EXPERIMENTS, "here", entry)
    monkeypatch.setattr(
        "utils.experiments.registry.here", lambda device: [{"pid": os.getpid()}], raising=False
    )
    assert run_here("here", "cpu").rows == [{"pid": os.getpid()}]
    monkeypatch.setattr("utils.experiments.registry.here", lambda device: [])
    assert run_here("here", "cpu").problem == "gave no rows"


def test_sentences_are_one_line_and_know_memory():
    assert sentence_of(torch.OutOfMemoryError("x")) == "ran out of memory"
    assert sentence_of(RuntimeError("CUDA error: out of memory")) == "ran out of memory"
    assert sentence_of(MemoryError()) == "ran out of memory"
    assert sentence_of(ValueError("two\nlines " + "x" * 500)).startswith(
        "failed (ValueError: two lines xxx"
    )
    assert len(sentence_of(ValueError("x" * 500))) < 230
    assert isinstance(NotHere("x"), RuntimeError)


def test_an_answer_that_is_not_whole_is_a_failure(tmp_path):
    answer, log = tmp_path / "answer.json", tmp_path / "log.txt"
    log.write_text("")
    for text in ("", "{", "[]", '{"rows": 1, "unknown": 2}'):
        answer.write_text(text)
        outcome = _read(answer, log, 0, 1.0)
        assert outcome == Outcome(1.0, problem="ended with code 0 (no message)", is_failure=True)
    assert _read(answer, log, -signal.SIGKILL, 1.0).problem.startswith("was killed by the system")
