"""What fits: running out of memory is survived, and the largest batch is found with few tries."""

import weakref

import pytest
import torch

from utils.experiments.fitting import DoesNotFit, largest_batch, peak_bytes, survive
from utils.memory import measure_memory


def raiser(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        DoesNotFit(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_ran_out_is_survived(error):
    assert survive(raiser(error)) is None


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("no plan")])
def test_any_other_error_is_not_hidden(error):
    with pytest.raises(type(error), match=str(error)):
        survive(raiser(error))


def test_what_a_failed_step_held_is_free_afterwards():
    references = []

    def action():
        held = torch.zeros(3)
        references.append(weakref.ref(held))
        raise DoesNotFit

    assert survive(action) is None
    assert references[0]() is None


def test_a_result_passes_through():
    assert survive(lambda: 5) == 5


@pytest.mark.parametrize("limit", [0, 99, 100, 101, 137, 999, 10_007])
@pytest.mark.parametrize("first", [1, 8, 300])
def test_the_largest_batch_is_exact_whatever_the_start(limit, first):
    def line(size):
        return 70 + 30 * size

    expected = max(0, (limit - 70) // 30)
    assert largest_batch(line, limit, first) == expected


@pytest.mark.parametrize("power", [0.7, 1.5, 2.0])
def test_a_curve_is_followed_too(power):
    expected = max(size for size in range(10_000) if int(100 + 9 * size**power) <= 5000)
    assert largest_batch(lambda size: int(100 + 9 * size**power), 5000, 4) == expected


def test_running_out_of_memory_counts_as_too_large():
    def peak_of(size):
        return 10 * size if size <= 37 else None

    assert largest_batch(peak_of, 10_000, 8) == 37


def test_a_peak_that_never_grows_ends_at_the_most():
    assert largest_batch(lambda size: 5, 10, 8, most=100) == 100


def test_a_straight_line_takes_few_tries():
    tried = []

    def peak_of(size):
        tried.append(size)
        return 2_000 + 750 * size

    assert largest_batch(peak_of, 71_000, 8) == 92
    assert len(tried) <= 5


def test_on_a_cpu_the_meter_tells_the_peak():
    model = torch.nn.Linear(64, 64)
    x = torch.ones(8, 64)

    def step():
        model(x).sum().backward()

    step()
    held_bytes = 2 * 4 * 64 * 65  # weights and gradients
    assert peak_bytes(step, model, "cpu") == measure_memory(step, model).peak_bytes > held_bytes
