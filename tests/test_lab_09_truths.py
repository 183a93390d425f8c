"""What lab 09's checks compare with is true: steps, overwrites, plans, means, gains."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from utils.checks import truth_09_divide as divide
from utils.checks import truth_09_gain as gain
from utils.checks import truth_09_overwrite as overwrite
from utils.checks.truth_09_buffers import CASES as MODELS
from utils.checks.truth_09_buffers import one_process, run_plan
from utils.checks.truth_09_buffers_mistakes import size_mistake
from utils.checks.truth_09_divide_mistakes import mistakes
from utils.checks.truth_09_overwrite_mistakes import MISTAKES as SEARCHES
from utils.checks.truth_09_waits import CASES as STEPS
from utils.checks.truth_09_waits import best_timeline, waits_of, with_waits
from utils.checks.truth_09_waits_mistakes import MISTAKES as WAITS
from utils.checks.truth_09_waits_mistakes import mistaken
from utils.ranks import run_ranks
from utils.simulate import overwrites, simulate, two_buffers

ONE_STREAM = [case for case in STEPS if not case.has_two_streams and not case.saves]


@pytest.mark.parametrize("case", ONE_STREAM, ids=lambda case: case.name)
def test_the_shortest_step_is_the_lessons(case):
    gather_s, *_, reduce_s = case.seconds
    lessons = simulate(
        two_buffers(case.layers, lambda _: gather_s, lambda _: reduce_s, 1, 1, **case.buffers)
    )
    best = best_timeline(case)
    assert [span.start_s for span in best.spans] == [span.start_s for span in lessons.spans]


def with_random_seconds(tasks, seed):
    draw = random.Random(seed)
    return [replace(task, seconds=draw.choice([0.5, 1.0, 8.0])) for task in tasks]


@pytest.mark.parametrize("case", STEPS[::3], ids=lambda case: case.name)
def test_right_waits_are_safe_at_any_speed_and_none_can_be_left_out(case):
    waits = waits_of(case.tasks, case.accesses)
    tasks = with_waits(case.tasks, waits)
    for seed in range(30):
        timeline = simulate(with_random_seconds(tasks, seed))
        assert overwrites(timeline, case.accesses) == []
    for one, seed in itertools.product(waits, range(30)):
        left = with_random_seconds(with_waits(case.tasks, [w for w in waits if w != one]), seed)
        right = with_random_seconds(tasks, seed)
        if overwrites(simulate(left), case.accesses):
            continue
        assert simulate(left).total_s == pytest.approx(simulate(right).total_s)


@pytest.mark.parametrize("text, change", WAITS)
def test_each_wrong_schedule_overwrites_or_stalls_somewhere(text, change):
    harmful = [
        case for case in STEPS
        if overwrites(mistaken(case, change), case.accesses)
        or mistaken(case, change).total_s > best_timeline(case).total_s
    ]  # fmt: skip
    assert harmful


@pytest.mark.parametrize("drop", [lambda _: False, overwrite.is_hasty, overwrite.is_early])
@pytest.mark.parametrize("case", STEPS, ids=lambda case: case.name)
def test_overwrites_are_those_that_the_simulator_finds(case, drop):
    waits = [each for each in waits_of(case.tasks, case.accesses) if not drop(each)]
    timeline = simulate(with_waits(case.tasks, waits))
    found = overwrite.hurt(overwrite.log_of(case, drop))
    told = overwrites(timeline, case.accesses)
    assert bool(found) == bool(told)
    for who, whom, when_s in found:
        assert timeline.span(who).start_s == when_s
        assert any(text.startswith(f"{who} fills") and whom in text for text in told)


@pytest.mark.parametrize("text, search", SEARCHES)
def test_each_wrong_search_is_wrong_in_some_log(text, search):
    rights = [(overwrite.hurt(log) or [None])[0] for _, log in overwrite.LOGS]
    assert [search(log) for _, log in overwrite.LOGS] != rights


def train(rank, world_size, case):
    return run_plan(case, case.plan, rank)


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_the_best_plan_trains_and_holds_what_the_formula_says(case):
    for run in run_ranks(train, case.num_ranks, case, quiet=True):
        assert (run.num_gathers, run.num_reductions, run.held_bytes) == case.expected
        for mine, true in zip(run.weights, one_process(case), strict=True):
            assert torch.allclose(mine, true, atol=1e-6)
    assert size_mistake(case, case.plan) == ""


def test_unequal_layers_need_less_than_buffers_of_one_size():
    for case in MODELS:
        sizes = case.plan.sizes
        assert sum(sizes) < len(sizes) * max(sizes)


@pytest.mark.parametrize("case", divide.CASES, ids=lambda case: case.name)
def test_gradients_are_exact_until_they_are_divided(case):
    gradients = case.gradients_NKLP
    assert torch.equal(gradients.to(case.dtype).float(), gradients)
    assert torch.equal(gradients.sum((0, 1)).double(), gradients.double().sum((0, 1)))
    divided = (gradients.to(case.dtype) / (divide.NUM_RANKS * case.num_micro)).float()
    assert not torch.allclose(divided.sum((0, 1)), case.true_LP, rtol=1e-5, atol=1e-12)
    texts = {text for text, _ in mistakes(case)}
    assert len(texts) >= 7


def late(rank, world_size):
    sums = divide.LateSums(rank, run := divide.Run())
    buffer_P = torch.ones(divide.NUM_VALUES, dtype=torch.bfloat16)
    first = sums.start(buffer_P)
    buffer_P.fill_(2)
    second = sums.start(buffer_P)
    values = second.wait(), first.wait()
    return [value[0].item() for value in values], run.touched, run.log


def test_a_late_sum_reads_its_buffer_when_it_is_waited_for():
    for values, touched, log in run_ranks(late, divide.NUM_RANKS, quiet=True):
        assert values == [6.0, 6.0] and touched == [0]
        assert log == [("sent", 0), ("sent", 1), ("waited", 1), ("waited", 0)]


@pytest.mark.parametrize("case", gain.CASES, ids=lambda case: case.name)
def test_more_buffers_never_end_later_and_gains_are_two_shares_of_one_saving(case):
    ends = [case.end_s(number) for number in range(1, case.num_layers + 1)]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == sum(case.gather_s) + sum(case.compute_s)
    number, _, less, more = case.right
    assert ends[number - 1] == ends[-1] and (number == 1 or ends[number - 2] > ends[-1])
    assert (1 - less / 100) * (1 + more / 100) == pytest.approx(1)


@pytest.mark.parametrize("text, mistake", gain.MISTAKES)
def test_each_wrong_gain_shows_in_some_case(text, mistake):
    assert any(mistake(case) != case.right for case in gain.CASES)
