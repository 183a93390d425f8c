"""Buffers in a timeline: a safe schedule has no hazard, and a forgotten wait is found and named."""

import random
from dataclasses import replace

import pytest

from utils.simulate.hazards import Access, overwrites
from utils.simulate.layers import Layer
from utils.simulate.timeline import COMMUNICATION, COMPUTE, Task, simulate
from utils.simulate.two_buffers import buffer_accesses, two_buffers

# Four equal layers of one value: forward 1, backward 2 seconds.
LAYERS = tuple(Layer(name, 1.0, 2.0, (1,)) for name in "abcd")
ONE = (1, 1)  # bytes of a weight and of a gradient
SEEDS = range(300)


def per_byte(num_bytes):
    return 1.0 * num_bytes


def free(num_bytes):
    return 0.0


def random_model(draw):
    return [
        Layer(f"layer {i}", draw.random(), 2 * draw.random(), (draw.randint(1, 100),))
        for i in range(draw.randint(1, 10))
    ]


@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize("num_buffers", [1, 2, 3])
def test_the_schedule_never_overwrites_a_buffer_in_use(zero_stage, num_buffers):
    how = {"zero_stage": zero_stage, "weight_buffers": num_buffers, "gradient_buffers": num_buffers}
    for seed in SEEDS:
        draw = random.Random(seed)
        layers, rate = random_model(draw), 10 ** draw.uniform(-4, 0)
        timeline = simulate(
            two_buffers(layers, lambda n, rate=rate: rate * n, lambda n: n / 50, *ONE, **how)
        )
        assert overwrites(timeline, buffer_accesses(layers, **how)) == []


def without_wait(tasks, name, dropped):
    """The schedule with one wait forgotten."""
    return [
        replace(task, after=tuple(a for a in task.after if a != dropped))
        if task.name == name
        else task
        for task in tasks
    ]


def test_a_forgotten_wait_is_found_and_named():
    tasks = two_buffers(LAYERS, free, lambda _: 5.0, *ONE)
    accesses = buffer_accesses(LAYERS)
    weights = simulate(without_wait(tasks, "gather forward c", "forward a"))
    assert overwrites(weights, accesses) == [
        "gather forward c fills weights 0 before forward a has finished with it"
    ]
    # In stage 3 b's gather stands behind d's scatter, so that the stream keeps the order by luck.
    by_luck = simulate(without_wait(tasks, "backward b", "reduce-scatter d"))
    assert overwrites(by_luck, accesses) == []
    kept = two_buffers(LAYERS, free, lambda _: 5.0, *ONE, zero_stage=2)
    gradients = simulate(without_wait(kept, "backward b", "reduce-scatter d"))
    assert overwrites(gradients, buffer_accesses(LAYERS, zero_stage=2)) == [
        "backward b fills gradients 1 before reduce-scatter d has finished with it"
    ]
    late = [replace(task, seconds=3.0) if "gather" in task.name else task for task in tasks]
    early = simulate(without_wait(late, "forward a", "gather forward a"))
    assert "forward a begins before weights 0 holds a" in overwrites(early, accesses)


def test_a_schedule_with_one_buffer_too_few_is_found():
    """Two buffers' waits, but every layer in the same buffer."""
    timeline = simulate(two_buffers(LAYERS, per_byte, per_byte, *ONE))
    assert overwrites(timeline, buffer_accesses(LAYERS)) == []
    problems = overwrites(timeline, buffer_accesses(LAYERS, weight_buffers=2, gradient_buffers=1))
    assert any("gradients 0" in problem for problem in problems)


def test_hazards_by_hand():
    tasks = [
        Task("fill x", COMMUNICATION, 1.0),
        Task("use x", COMPUTE, 2.0, ("fill x",)),
        Task("fill y", COMMUNICATION, 1.0, ("use x",)),
        Task("use y", COMPUTE, 1.0, ("fill y",)),
    ]
    accesses = [
        Access("fill x", "b", "x", True), Access("use x", "b", "x", False),
        Access("fill y", "b", "y", True), Access("use y", "b", "y", False),
    ]  # fmt: skip
    assert overwrites(simulate(tasks), accesses) == []  # ending and beginning at 3 is no overlap
    hasty = [*tasks[:2], replace(tasks[2], after=()), tasks[3]]
    assert overwrites(simulate(hasty), accesses) == [
        "fill y fills b before use x has finished with it"
    ]
    # y came first and x on top of it: whoever uses y then finds x.
    swapped = [tasks[0], tasks[2], tasks[1], tasks[3]]
    swapped[1] = replace(tasks[2], after=())
    backwards = [swapped[1], swapped[0], replace(tasks[3], after=("fill x",)), tasks[1]]
    assert overwrites(simulate(backwards), accesses) == [
        "fill x fills b before use y has finished with it"
    ]
    assert overwrites(simulate(tasks), accesses[1:2]) == ["use x begins before b holds x"]


def test_an_access_by_no_task_is_refused():
    with pytest.raises(ValueError, match="has no task 'a'"):
        overwrites(simulate([]), [Access("a", "b", "c", True)])
