"""Answers that are judged on real ranks: each of the engine's outcomes, and nothing left behind."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.rank_processes import gone, ranks
from utils.checks import engine, exercise, judge, require
from utils.checks import on_ranks as on_ranks_module
from utils.checks.on_ranks import on_ranks
from utils.ranks import RankError

KEY = "07.1"


def trial(rank, world_size, answer):
    got = answer(rank)
    require(got != "wrong", "The answer is wrong", likely="it was made so")
    return got


@pytest.fixture(autouse=True)
def registry(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "EXERCISES", {})
    monkeypatch.setattr(engine, "_load_labs", lambda: None)
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))

    @exercise(KEY, "run", seconds=100)
    def judge_run(answer):
        return f"They returned {on_ranks(trial, 2, answer, likely='one rank is missing')}."


def stub(rank):
    raise NotImplementedError("your turn")


def stub_on_one_rank(rank):
    if rank == 1:
        stub(rank)
    dist.barrier()


def divides(rank):
    number = 3
    return number / (rank - 1)


def one_sided(rank):
    if rank == 0:
        dist.all_reduce(torch.ones(5))
    return rank


def receives_too_little(rank):
    other, space = 1 - rank, torch.empty(1)
    pair = dist.P2POp(dist.isend, torch.ones(9), other), dist.P2POp(dist.irecv, space, other)
    for work in dist.batch_isend_irecv(list(pair)):
        work.wait()


def dies(rank):
    os.kill(os.getpid(), signal.SIGKILL)


def endless(rank):
    while True:
        pass


def sleeps(rank):
    time.sleep(1000)


def lacks_an_operation(rank):
    class Lacking(torch.nn.Module):
        pass

    return Lacking()(rank)


generator = (number for number in range(3))


def holds_a_generator(rank):
    return next(generator)


def test_results_come_in_rank_order_with_what_was_printed():
    def prints(rank):
        print("hello")
        return 10 * rank

    outcome = judge(KEY, prints)
    assert outcome.message == "07.1 run: passed. They returned [0, 10]."
    assert outcome.printed == ("[rank 0] hello", "[rank 1] hello")


@pytest.mark.parametrize("answer", [stub, stub_on_one_rank])
def test_a_stub_is_not_attempted(answer):
    outcome = judge(KEY, answer)
    assert outcome.status == "not attempted"
    assert "Put your answer in place" in outcome.message and "NotImplemented" not in outcome.message


def test_an_exception_is_told_with_the_rank_and_the_learners_line():
    outcome = judge(KEY, divides)
    assert outcome.status == "raised"
    assert outcome.message == (
        "07.1 run: your code raised ZeroDivisionError: division by zero (on rank 1, line 3 of "
        "divides: `return number / (rank - 1)`)."
    )


def test_an_operation_that_torch_lacks_is_no_stub():
    outcome = judge(KEY, lacks_an_operation)
    assert outcome.status == "raised" and "NotImplementedError" in outcome.message


def test_ranks_that_wait_say_where_and_the_judge_says_why():
    outcome = judge(KEY, one_sided)
    assert outcome.status == "not yet"
    assert "rank 0 waited in all_reduce of 5 float32 values, line 3 of one_sided" in outcome.message
    assert "rank 1 had finished" in outcome.message
    assert outcome.message.endswith("Likely mistake: one rank is missing.")


def test_messages_of_different_sizes_are_explained_like_waiting():
    outcome = judge(KEY, receives_too_little)
    assert outcome.status == "not yet" and "SIGABRT" in outcome.message
    assert outcome.message.endswith("Likely mistake: one rank is missing.")


def test_a_killed_rank_is_not_explained_by_waiting():
    outcome = judge(KEY, dies)
    assert outcome.status == "not yet" and "SIGKILL" in outcome.message
    assert "one rank is missing" not in outcome.message


def test_what_a_trial_requires_arrives_as_it_is():
    outcome = judge(KEY, lambda rank: "wrong")
    assert outcome.message == (
        "07.1 run: not yet. The answer is wrong. Likely mistake: it was made so."
    )


def test_an_answer_that_cannot_travel_is_named():
    outcome = judge(KEY, holds_a_generator)
    assert outcome.status == "not yet"
    assert "your answer holds an object of type generator" in outcome.message


@pytest.mark.parametrize("answer", [endless, sleeps])
def test_a_loop_is_stopped_by_the_ranks_own_limit(answer, monkeypatch):
    monkeypatch.setattr(on_ranks_module, "TIMEOUT_S", dict.fromkeys(("forkserver", "spawn"), 2.0))
    outcome = judge(KEY, answer)
    assert outcome.status == "stopped" and "a loop that never ends" in outcome.message
    assert f"of {answer.__name__}" in outcome.message and "timeout_s" not in outcome.message


@pytest.mark.parametrize("num_late, status", [(0, "passed"), (1, "passed"), (2, "stopped")])
def test_a_machine_too_busy_to_start_ranks_is_given_more_time_and_blames_nobody(
    num_late, status, monkeypatch
):
    limits_s = []

    def run_late(worker, world_size, timeout_s, **options):
        limits_s.append(timeout_s)
        if len(limits_s) > num_late:
            return ["4"] * world_size
        late = f"The ranks did not finish in {timeout_s:g} s and were stopped."
        raise RankError(f"{late}\nranks 0 and 1 were not yet in the worker.\nIf they need longer.")

    monkeypatch.setattr(on_ranks_module, "run_ranks", run_late)
    outcome = judge(KEY, sleeps)
    assert outcome.status == status and "never ends" not in outcome.message
    assert limits_s == sorted(set(limits_s)) and len(limits_s) == min(num_late + 1, 2)
    assert ("this machine is busy" in outcome.message) == (status == "stopped")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_the_checks_own_limit_leaves_no_rank():
    exercise("07.2", "run", seconds=1.0)(lambda answer: str(on_ranks(trial, 2, answer)))
    assert judge("07.2", sleeps).status == "stopped"
    assert gone(ranks(os.getpid()))
