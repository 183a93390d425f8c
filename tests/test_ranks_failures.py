"""Ranks that fail, each way of it: one RankError whose text is the same on every run.

The scenarios run a few at a time, each in a thread: launches do not disturb each other.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from tests import rank_scenarios as workers
from tests.rank_processes import ranks
from utils.ranks import RankError, run_ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*they take turns")
AGREE = "All ranks of a group must call the same collectives, in the same order and with the same "
AGREE += "shapes."
STUCK = "The ranks wait for each other and none can go on."
SCENARIOS = {
    workers.one_raises: [
        "rank 1 failed first: ValueError: bad shape of <object object at 0x...> second line",
        "  line 3 of one_raises: `helper(rank)`",
        '  line 2 of helper: `raise ValueError(f"bad shape of {object()}\\nsecond line")`',
        "ranks 0 and 2 waited in all_reduce of 4 float32 values, line 4 of one_raises: "
        "`dist.all_reduce(torch.ones(4))`.",
    ],
    workers.all_raise: [
        "ranks 0, 1 and 2 failed: KeyError: 'k'",
        '  line 2 of all_raise: `{}["k"]`',
    ],
    workers.two_raise: [
        "rank 0 failed first: ValueError: first",
        '  line 3 of two_raise: `raise ValueError("first")`',
        "rank 1 had finished.",
        "rank 2 raised KeyError: 'other' (line 5 of two_raise: `raise KeyError(\"other\")`).",
    ],
    workers.exits: [
        "rank 1 failed first: SystemExit: 3",
        "  line 3 of exits: `sys.exit(3)`",
        "ranks 0 and 2 had finished.",
    ],
    workers.one_sided: [
        STUCK,
        "ranks 0 and 2 had finished.",
        "rank 1 waited in all_reduce of 4 float32 values, line 3 of one_sided: "
        "`dist.all_reduce(torch.ones(4))`.",
        AGREE,
    ],
    workers.one_sided_later: [
        STUCK,
        "rank 0 had finished.",
        "ranks 1 and 2 waited in line 4 of one_sided_later: `work.wait()`; its last collective was "
        "all_reduce of 4 float32 values.",
        AGREE,
    ],
    workers.different_collectives: [
        STUCK,
        "rank 0 waited in all_reduce of 4 float32 values, line 4 of different_collectives: "
        "`dist.all_reduce(x)`.",
        "ranks 1 and 2 waited in broadcast of 4 float32 values with root 0, line 6 of "
        "different_collectives: `dist.broadcast(x, 0)`.",
        AGREE,
    ],
    workers.nobody_sends: [
        STUCK,
        "rank 0 waited in recv of 3 float32 values from rank 1, line 3 of nobody_sends: "
        "`dist.recv(torch.ones(3), 1)`.",
        "ranks 1 and 2 waited in barrier, line 4 of nobody_sends: `dist.barrier()`.",
        AGREE,
    ],
    workers.different_shapes: [
        "The ranks' collectives do not fit together, and gloo aborts the process then (SIGABRT).",
        *(
            f"rank {rank} called all_reduce of {4 + 4 * rank} float32 values, line 2 of "
            "different_shapes: `dist.all_reduce(torch.ones(4 + 4 * rank))`."
            for rank in range(3)
        ),
        AGREE,
    ],
    workers.only_one_trains: [
        STUCK,
        "rank 0 waited in all_reduce of 20 float32 values, line 4 of only_one_trains: "
        "`model(torch.ones(2, 4)).sum().backward()`.",
        "ranks 1 and 2 had finished.",
        AGREE,
    ],
    workers.killed: [
        "rank 1 was killed (SIGKILL); if nobody did that, the machine had no memory left.",
        "ranks 0 and 2 fell with it in barrier, line 4 of killed: `dist.barrier()`.",
    ],
    workers.crashes: [
        "rank 1 crashed (SIGSEGV).",
        "ranks 0 and 2 fell with it in barrier, line 4 of crashes: `dist.barrier()`.",
    ],
    workers.leaves: [
        "rank 1 ended itself with exit code 3, as os._exit does.",
        "ranks 0 and 2 had finished.",
    ],
    workers.sleeps: [
        "The ranks did not finish in 2 s and were stopped.",
        "ranks 0 and 2 waited in barrier, line 4 of sleeps: `dist.barrier()`.",
        "rank 1 was in line 3 of sleeps: `time.sleep(1000)`; it has called no collective.",
        "If they need longer, give run_ranks a larger timeout_s.",
    ],
    workers.never_yields: [
        "The ranks did not finish in 2 s and were stopped.",
        "ranks 0 and 2 had finished.",
        "rank 1 gave no answer: it was inside one long call of C code.",
        "If they need longer, give run_ranks a larger timeout_s.",
    ],
    workers.nested: [
        "ranks 0, 1 and 2 failed: RuntimeError: run_ranks was called inside a rank, and a rank "
        "cannot start ranks: call it from the notebook, with as many ranks as you need.",
        "  line 2 of nested: `run_ranks(all_raise, 2)`",
    ],
    workers.with_a_path: [
        "ranks 0, 1 and 2 failed: OSError: no file <temporary file>, and nothing else",
        '  line 2 of with_a_path: `raise OSError(f"no file {tempfile.gettempdir()}/x1b2/log, and '
        'nothing else")`',
    ],
    workers.unread: [
        "ranks 0, 1 and 2 failed reading the worker: ValueError: invalid literal for int() "
        "with base 10: 'no number'",
    ],
}


def outcome(scenario):
    arguments = [workers.Unreadable()] if scenario is workers.unread else []
    limit_s = 2 if scenario in (workers.sleeps, workers.never_yields) else 60
    try:
        return run_ranks(scenario, 3, *arguments, timeout_s=limit_s, quiet=True)
    except RankError as error:
        return error


@pytest.fixture(scope="module")
def outcomes():
    run_ranks(lambda rank, world_size: rank, 1)  # the server is then ready
    with ThreadPoolExecutor(4) as pool:
        scenarios = [workers.a_thread_acts, *SCENARIOS]
        results = dict(zip(scenarios, pool.map(outcome, scenarios), strict=True))
    yield results
    assert not ranks(os.getpid())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_message(outcomes, scenario):
    error = outcomes[scenario]
    assert isinstance(error, RankError)
    assert str(error).splitlines() == SCENARIOS[scenario]


def test_ranks_whose_threads_may_still_act_are_left_in_peace(outcomes):
    assert outcomes[workers.a_thread_acts] == [0, 1, 2]


def test_the_error_says_who_failed_and_keeps_what_came_back(outcomes):
    error = outcomes[workers.one_raises]
    assert (error.rank, error.error_type, error.results) == (1, "ValueError", {})
    error = outcomes[workers.one_sided]
    assert (error.rank, error.error_type, error.results) == (None, "", {0: 0, 2: 2})
    error = outcomes[workers.leaves]
    assert (error.rank, error.error_type, error.results) == (1, "", {0: "done", 2: "done"})


def test_the_run_after_a_failure_is_not_disturbed(outcomes, capfd):
    def prints_and_fails(rank, world_size):
        print("so far", rank)
        dist.barrier()
        raise ValueError

    with pytest.raises(RankError, match=r"^ranks 0 and 1 failed: ValueError\n"):
        run_ranks(prints_and_fails, 2)
    assert capfd.readouterr().out == "[rank 0] so far 0\n[rank 1] so far 1\n"
    assert run_ranks(lambda rank, world_size: rank, 3) == [0, 1, 2]
