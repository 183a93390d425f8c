"""The threads of a process as Linux sees them."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch

from utils import threads
from utils.threads import other_threads, wanted_s

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
