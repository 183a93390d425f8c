"""Threads as Linux sees them, and a meter that lets gloo's threads finish first."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch

from utils import memory_threads, threads
from utils.memory import MemoryMeter
from utils.threads import OtherThread, other_threads, wanted_s

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@linux
def test_a_sleeping_thread_sleeps_and_a_busy_one_wants_the_processor():
    ended, busy = threading.Event(), threading.Event()
    sleeper = threading.Thread(target=ended.wait)
    worker = threading.Thread(target=lambda: [torch.randn(500, 500) @ torch.randn(500, 500)
                                              for _ in iter(busy.is_set, True)])  # fmt: skip
    sleeper.start()
    alone, before_s = len(other_threads()), wanted_s(other_threads())
    worker.start()
    states = set()
    for _ in range(200):
        time.sleep(0.005)
        states |= {each.state for each in other_threads()}
    assert wanted_s(other_threads()) - before_s > 0.2  # of about one second, whatever the load
    assert {"R", "S"} <= states and len(other_threads()) > alone
    for event, thread in ((ended, sleeper), (busy, worker)):
        event.set()
        thread.join()


def test_without_linux_the_process_s_own_time_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_TASKS", tmp_path / "none")
    assert other_threads() == [] and wanted_s([]) == pytest.approx(time.process_time(), abs=1)


@pytest.fixture
def carriers(monkeypatch):
    """Stand-ins for gloo's threads: what `other_threads` answers, one answer after the other."""
    answers = []
    monkeypatch.setattr(memory_threads.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(memory_threads, "LIMIT_S", 0.2)
    monkeypatch.setattr(
        memory_threads, "other_threads", lambda: answers.pop(0) if len(answers) > 1 else answers[0]
    )
    return answers


def carrier(state: str) -> list[OtherThread]:
    return [OtherThread("python", "R", 0.0), OtherThread(memory_threads.GLOO_THREAD, state, 0.0)]


def test_it_waits_until_a_carrier_has_slept_twice(carriers):
    carriers[:] = [carrier(state) for state in "RRSRSSS"]
    memory_threads.let_gloo_finish()
    assert len(carriers) == 1  # "R" between two "S" begins anew


def test_it_gives_up_on_a_carrier_that_never_sleeps(carriers):
    carriers[:] = [carrier("R")]
    memory_threads.let_gloo_finish()


def test_without_carriers_it_asks_once(carriers):
    carriers[:] = [[OtherThread("python", "R", 0.0)], carrier("R")]
    memory_threads.let_gloo_finish()
    assert len(carriers) == 1


def test_the_meter_lets_a_thread_go_before_a_new_peak(monkeypatch):
    """What another thread still holds when the peak comes is gone once it was waited for."""
    held = []
    monkeypatch.setattr("utils.memory.let_gloo_finish", held.clear)
    with MemoryMeter() as meter:
        held.append(torch.ones(1000))
        whole = torch.ones(1500)
    assert meter.report().peak_bytes == whole.nbytes
