"""Other right answers to lab 09 pass."""

from dataclasses import replace

import pytest
import torch

from tests.wrong_builders_09 import mutant
from utils.checks.engine import judge
from utils.simulate import simulate


def waits_by_looking_back(tasks, accesses):
    """From each access back to the filling before it, and to what used that."""
    places = {task.name: place for place, task in enumerate(tasks)}
    of_buffer = {}
    for access in sorted(accesses, key=lambda each: places[each.task]):
        of_buffer.setdefault(access.buffer, []).append(access)
    after = {task.name: set() for task in tasks}
    for history in of_buffer.values():
        for number, access in enumerate(history):
            for earlier in reversed(history[:number]):
                if access.writes or earlier.writes:
                    after[access.task].add(earlier.task)
                if earlier.writes:
                    break
    return [replace(task, after=tuple(sorted(after[task.name]))) for task in tasks]


def waits_for_more_than_needed(tasks, accesses):
    """Waits that cost nothing: each task waits for its stream, too."""
    before, result = {}, []
    for task in waits_by_looking_back(tasks, accesses):
        mine = before.get(task.stream)
        result.append(replace(task, after=(*task.after, *([mine] if mine else []))))
        before[task.stream] = task.name
    assert simulate(result).total_s > 0
    return result


def overwrite_by_replay(log):
    """Holds instead of uses: from a filling to the last use of what it has brought."""
    fills = sorted((each for each in log if each.fills), key=lambda each: each.start_s)
    holds = {number: [] for number in range(len(fills))}
    for use in log:
        if not use.fills:
            mine = [number for number, fill in enumerate(fills)
                    if (fill.buffer, fill.layer) == (use.buffer, use.layer)
                    and fill.start_s < use.start_s]  # fmt: skip
            holds[mine[-1]].append(use)
    for number, fill in enumerate(fills):
        for earlier, uses in holds.items():
            other = fills[earlier]
            last = max(uses, key=lambda use: use.end_s, default=None)
            if earlier < number and other.buffer == fill.buffer and other.layer != fill.layer:
                if last is not None and fill.start_s < last.end_s:
                    return [fill.task, last.task, float(fill.start_s)]
    return None


def plan_with_sets(layers, world_size, num_buffers):
    """Sizes from a dict; norms first recognised by their set; tuples."""
    count = min(len(layers), num_buffers)
    norms = {name for layer in layers for name in layer if "norm" in name.split(".")}
    sizes = dict.fromkeys(range(count), 0)
    units, places = [], []
    for number, layer in enumerate(layers):
        unit = tuple(sorted(set(layer) - norms))
        num_values = sum(map(layer.get, unit))
        num_values += (-num_values) % world_size
        sizes[number % count] = max(num_values, sizes[number % count])
        units.append(unit)
        places.append(number % count)
    units += [tuple(sorted(norms))] if norms else []
    places += [None] if norms else []
    return tuple(units), tuple(places), tuple(sizes.values())


class Gradients:
    """With an object; a queue of messages instead of places."""

    def __init__(self, buffers, num_layers):
        self.free, self.queue, self.sums = list(buffers), [], [None] * num_layers

    def take(self):
        if not self.free:
            self.arrive()
        return self.free.pop(0)

    def arrive(self):
        layer, buffer_P, message = self.queue.pop(0)
        sum_S, before = message.wait(), self.sums[layer]
        self.sums[layer] = sum_S if before is None else before.add_(sum_S)
        self.free.append(buffer_P)


def mean_by_queue(fill, num_layers, num_micro, buffers, start_sum, world_size):
    gradients = Gradients(buffers, num_layers)
    for turn in range(num_layers * num_micro):
        micro, layer = turn // num_layers, num_layers - 1 - turn % num_layers
        buffer_P = gradients.take()
        buffer_P.fill_(0)
        fill(micro, layer, buffer_P)
        gradients.queue.append((layer, buffer_P, start_sum(buffer_P)))
    while gradients.queue:
        gradients.arrive()
    return tuple(torch.div(each, num_micro * world_size) for each in gradients.sums)


def choose_with_tasks(gather_s, compute_s, layer_bytes):
    """Time step by time step of 1/16 s."""
    num_layers = len(gather_s)
    ends = [_played(gather_s, compute_s, count) for count in range(1, num_layers + 1)]
    count = ends.index(min(ends)) + 1
    sizes = [0] * count
    for place, size in enumerate(layer_bytes):
        sizes[place % count] = max(size, sizes[place % count])
    saved = ends[0] - min(ends)
    return [count, sum(sizes), saved * 100 / ends[0], saved * 100 / min(ends)]


def _played(gather_s, compute_s, count):
    gathers, computes = ([16 * each for each in some] for some in (gather_s, compute_s))
    gathered = computed = ticks = 0
    while computed < len(computes):
        while gathered < len(gathers) and gathered - computed < count and gathers[gathered] <= 0:
            gathered += 1
        gathers_now = gathered < len(gathers) and gathered - computed < count
        computes_now = computed < gathered
        ticks += 1
        if gathers_now:
            gathers[gathered] -= 1
            gathered += gathers[gathered] <= 0
        if computes_now:
            computes[computed] -= 1
            computed += computes[computed] <= 0
    return ticks / 16


OTHERS = [
    ("09.1", waits_by_looking_back),
    ("09.1", waits_for_more_than_needed),
    ("09.2", overwrite_by_replay),
    ("09.3", plan_with_sets),
    ("09.4", mean_by_queue),
    ("09.5", choose_with_tasks),
]


@pytest.mark.parametrize("key, answer", OTHERS)
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def test_an_error_on_a_rank_is_told_with_its_line():
    outcome = judge("09.4", mutant("09.4", "            finish(place)", "            finish()"))
    assert outcome.status == "raised", outcome.message
    assert "missing 1 required positional argument: 'place'" in outcome.message
    assert "of mean_of_step" in outcome.message


def test_an_error_in_a_plan_is_told_with_its_line():
    outcome = judge("09.3", mutant("09.3", "layer[name] for", "layers[name] for"))
    assert outcome.status == "raised", outcome.message
    assert "list indices must be integers" in outcome.message and "line" in outcome.message
