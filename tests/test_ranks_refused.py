"""Calls of run_ranks that cannot work, values that cannot travel, more ranks than cores."""

import threading
import warnings

import pytest
import torch

from utils.ranks import RankError, cores, cores_sentence, launch, run_ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*they take turns")


def summed(rank, world_size, factor):
    return rank * factor


def test_more_ranks_than_cores_warn_once_outside_of_notebooks(monkeypatch):
    monkeypatch.setattr(cores, "_num_cores", lambda: 1)
    monkeypatch.setattr(cores, "_warned", False)
    assert not cores._in_notebook()
    with pytest.warns(UserWarning, match="2 ranks on 1 core: they take turns"):
        cores.warn_of_many(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cores.warn_of_many(2)
        monkeypatch.setattr(cores, "_warned", False)
        monkeypatch.setattr(cores, "_in_notebook", lambda: True)
        cores.warn_of_many(2)
        cores.warn_of_many(1)


def test_the_sentence_about_cores(monkeypatch):
    monkeypatch.setattr(cores, "_num_cores", lambda: 4)
    assert cores_sentence(4) == "4 ranks on 4 cores: each rank has a core of its own."
    assert cores_sentence(5).startswith("5 ranks on 4 cores: they take turns")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((summed, 0, 1), {}, ValueError, "world_size is 0; give 1 to 64 ranks"),
        ((summed, 100, 1), {}, ValueError, "world_size is 100"),
        ((summed, 2.0, 1), {}, TypeError, "world_size is 2.0; give a whole number"),
        ((summed, True, 1), {}, TypeError, "world_size is True"),
        ((summed, 2), {}, TypeError, "does not take them: missing a required argument: 'factor'"),
        ((lambda rank: rank, 2), {}, TypeError, "here with 2 arguments, but the worker does not"),
        (([1], 2), {}, TypeError, "worker is of type list"),
        ((summed, 1, 1), {"timeout_s": 0}, ValueError, "timeout_s is 0"),
        ((summed, 1, 1), {"timeout_s": "9"}, ValueError, "timeout_s is '9'"),
        ((summed, 1, 1), {"timeout_s": float("inf")}, ValueError, "timeout_s is inf"),
        ((summed, 1, 1), {"backend": "mpi"}, ValueError, "backend is 'mpi'; take 'gloo'"),
        ((summed, 1, 1), {"start_method": "fork"}, ValueError, "start_method is 'fork'"),
    ],
)
def test_a_call_that_cannot_work_is_refused_in_a_sentence(arguments, options, error, words):
    with pytest.raises(error) as caught:
        run_ranks(*arguments, **options)
    assert words in str(caught.value)


def test_nccl_without_a_gpu_for_each_rank_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="nccl needs one GPU for each of the 2 ranks"):
        run_ranks(summed, 2, 1, backend="nccl")
    assert launch._backend(None, 2) == "gloo"
    assert launch._backend(None, 1) == "nccl" and launch._backend("gloo", 1) == "gloo"


def test_windows_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(launch.sys, "platform", "win32")
    with pytest.raises(RuntimeError, match="on Windows install WSL"):
        run_ranks(summed, 2, 1)


def test_what_cannot_be_sent_is_named(tmp_path):
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"argument 2 holds an object of type _thread.lock; files"):
        run_ranks(lambda rank, world_size, *rest: None, 2, 1, {"a": [lock]})
    with (tmp_path / "log").open("w") as file:
        with pytest.raises(TypeError, match=r"argument 1 is an object of type _io.TextIOWrapper"):
            run_ranks(lambda rank, world_size, each: None, 2, file)
    with pytest.raises(TypeError, match="`lock`, used by the worker, is an object"):
        run_ranks(lambda rank, world_size: lock.locked(), 2)


def test_a_result_that_cannot_be_sent_back_loses_no_other():
    def result(rank, world_size):
        return {"a": [(i for i in range(3))]} if rank == 1 else rank

    with pytest.raises(RankError) as caught:
        run_ranks(result, 3)
    assert str(caught.value).splitlines() == [
        "rank 1 returned what cannot be sent back: the value holds an object of type generator; "
        "files, locks and generators must be made inside the worker, and results be plain data.",
        "ranks 0 and 2 had finished.",
    ]
    assert caught.value.results == {0: 0, 2: 2} and caught.value.rank == 1


class Odd:
    """Can be written, but not read."""

    def __reduce__(self):
        return (int, ("no number",))


def test_a_result_that_cannot_be_read_here_loses_no_other():
    with pytest.raises(RankError, match="rank 0 returned a value that this process cannot") as seen:
        run_ranks(lambda rank, world_size: rank or Odd(), 2)
    assert seen.value.results == {1: 1}


def test_a_dtensor_says_what_to_return_instead():
    def result(rank, world_size):
        from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor

        return distribute_tensor(torch.ones(4), DeviceMesh("cpu", range(2)), [Shard(0)])

    with pytest.raises(RankError, match=r"is a DTensor.*take .to_local\(\) or .full_tensor\(\)"):
        run_ranks(result, 2)
