"""run_ranks when all goes well."""

import functools
import os
import sys
import threading
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tests.rank_processes import gone, ranks
from utils.ranks import run_ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*they take turns")
SCALE = 10


class Box:
    def __init__(self, value):
        self.value = value


def summed(rank, world_size, factor):
    x = torch.full((3,), float(rank))
    dist.all_reduce(x)
    return rank, (SCALE * factor * x).tolist()


def test_each_ranks_result_comes_back_in_rank_order():
    assert run_ranks(summed, 3, 2) == [(rank, [60.0] * 3) for rank in range(3)]


def test_one_rank_is_a_group_too():
    assert run_ranks(summed, 1, 1) == [(0, [0.0] * 3)]
    assert run_ranks(lambda rank, world_size: dist.get_world_size(), 1) == [1]


def test_a_closure_a_partial_and_an_object_are_workers():
    class Worker:
        def __call__(self, rank, world_size):
            return rank + offset

    offset = 5
    assert run_ranks(Worker(), 2) == [5, 6]
    assert run_ranks(functools.partial(summed, factor=1), 1) == [(0, [0.0] * 3)]
    assert run_ranks(lambda rank, world_size, *rest: rest, 1, 1, "a") == [(1, "a")]


def test_a_class_of_the_worker_comes_back_as_itself():
    boxes = run_ranks(lambda rank, world_size: Box(torch.ones(2) * rank), 2)
    assert all(isinstance(box, Box) for box in boxes)
    assert boxes[1].value.tolist() == [1.0, 1.0]


def environment(rank, world_size):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "COURSE_TEST", "OMP_NUM_THREADS")
    return [os.environ.get(name) for name in names], torch.get_num_threads(), dist.get_backend()


def test_a_rank_has_one_thread_and_the_environment_of_now(monkeypatch):
    monkeypatch.setenv("COURSE_TEST", "set just now")
    for rank, answer in enumerate(run_ranks(environment, 2, backend="gloo")):
        assert answer == ([str(rank), str(rank), "2", "set just now", "1"], 1, "gloo")


def random_numbers(rank, world_size):
    import random

    import numpy

    return torch.rand(2).tolist(), random.random(), numpy.random.rand()


def test_random_numbers_are_the_same_in_each_rank_and_run():
    first, second = run_ranks(random_numbers, 2), run_ranks(random_numbers, 2)
    assert first == second and first[0] == first[1]


def tensors(rank, world_size):
    large = torch.arange(1_000_000.0)
    weight = nn.Parameter(torch.ones(2))
    return large[3:5], weight, weight * 2, {"bf16": torch.ones(2, dtype=torch.bfloat16)}, [weight]


def test_tensors_come_back_without_the_memory_behind_them():
    ((view, weight, product, nested, again),) = run_ranks(tensors, 1)
    assert view.tolist() == [3.0, 4.0] and view.untyped_storage().nbytes() == 8
    assert isinstance(weight, nn.Parameter) and again[0] is weight
    assert not product.requires_grad and nested["bf16"].dtype == torch.bfloat16


def prints(rank, world_size):
    dist.barrier()
    for line in range(2):
        print("line", line, "of", rank)
        print("problem", line, file=sys.stderr)
    os.system("echo from another program")
    warnings.warn("take care", stacklevel=1)


def test_prints_arrive_labelled_and_in_rank_order(capfd):
    run_ranks(prints, 2)
    out, err = capfd.readouterr()
    lines = ["line 0 of {0}", "line 1 of {0}", "from another program"]
    assert out.splitlines() == [f"[rank {r}] {line.format(r)}" for r in range(2) for line in lines]
    lines = ["problem 0", "problem 1", "UserWarning: take care"]
    assert err.splitlines() == [f"[rank {rank}] {line}" for rank in range(2) for line in lines]


def test_a_quiet_run_prints_nothing(capfd):
    run_ranks(prints, 2, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_flood_of_output_is_cut_with_a_sentence(capfd):
    def flood(rank, world_size):
        for _ in range(30):
            print("x" * 99_999)
        return rank

    assert run_ranks(flood, 2) == [0, 1]
    lines = capfd.readouterr().out.splitlines()
    more = "(more was printed; only the first 100,000 bytes are shown)"
    assert lines == [f"[rank {r}] {text}" for r in range(2) for text in ("x" * 99_999, more)]


def test_what_a_rank_starts_ends_with_it():
    def start_a_program(rank, world_size):
        import subprocess

        return subprocess.Popen(["sleep", "1000"]).pid

    pids = set(run_ranks(start_a_program, 2))
    assert len(pids) == 2
    assert gone(pids) and not ranks(os.getpid())


def test_spawn_gives_the_same(capfd):
    def worker(rank, world_size):
        print("line of", rank)
        return summed(rank, world_size, 2)

    assert run_ranks(worker, 2, start_method="spawn") == [(r, [20.0] * 3) for r in range(2)]
    assert capfd.readouterr().out == "[rank 0] line of 0\n[rank 1] line of 1\n"
    assert not ranks(os.getpid())


def test_several_launches_at_once_do_not_meet():
    results = {}

    def launch_one(number):
        results[number] = run_ranks(summed, 2, number)

    threads = [threading.Thread(target=launch_one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [(r, [10.0 * n] * 3) for r in range(2)] for n in range(3)}
