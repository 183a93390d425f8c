# %% [markdown]
# # Lab 09: who waits, who overwrites, how much room, when to divide, what it is worth
#
# Five exercises on [lesson 09](../notebooks/09_yafsdp.ipynb), about 55 minutes. Complete each
# function and run the check right below it. Three checks use the simulator, two use real ranks,
# where they compare with one process and count bytes and messages; the first of these takes some
# seconds. Run All works at any time; what you have not touched says *not attempted yet*. Stuck?
# Remove the `#` before a `hint`; a second, longer one is `hint("09.1", 2)`.
#
# The usual first cell:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %% [markdown]
# You may use any of these. Suffixes: P values of a flat tensor, padding included, and S = P / N of a
# shard, for N ranks:

# %%
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.truth_09_overwrite import Use
from utils.measured import table
from utils.simulate import Access, Layer, Task, buffer_accesses, simulate, two_buffers
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 09.1: who waits for whom
#
# *difficulty 3/5 - 12 minutes*
#
# The lesson's schedule was written for its buffers. Tell a compiler which task fills and uses which
# buffer, and it finds the waits: with two buffers or three, in stage 2 and 3, with one stream of
# messages or two, or one that saves weights. Be that compiler:
#
# * a use needs what its buffer was filled with, so it must not begin before that filling is over;
# * a filling destroys what was there, so it must not begin before the uses of that are over.
#
# In a step of five layers, "gather forward c" fills "weights 0" again: it waits for "forward a", not
# for "forward b", which computes in "weights 1". Tasks begin as soon as their stream is free and all
# tasks in `after` have ended. A wait too few overwrites; a wait too many is a stall.

# %%
def add_waits(tasks: list[Task], accesses: list[Access]) -> list[Task]:
    """The tasks in the same order, each with `after`: the names of those it must wait for.

    Tasks come in the order of issue, with empty `after`. An access says that a task (by its name)
    fills `buffer` (`writes`) or uses what the filling issued last before it has brought; a task may
    have several accesses. No buffer may be overwritten while in use, at whatever speed, and the
    step must end as early as that allows.
    """
    ### BEGIN SOLUTION
    filled, used, result = {}, {}, []
    for task in tasks:
        waits = []
        for access in accesses:
            if access.task != task.name:
                continue
            buffer = access.buffer
            if access.writes:
                waits += used.get(buffer, [])
                filled[buffer], used[buffer] = task.name, []
            else:
                waits.append(filled[buffer])
                used.setdefault(buffer, []).append(task.name)
        result.append(replace(task, after=tuple(waits)))
    return result
    ### END SOLUTION

# %% [markdown]
# Seven kinds of steps at three speeds. Is a buffer overwritten, and does anybody wait for nothing?

# %%
check("09.1", add_waits)
# hint("09.1")

# %% [markdown]
# What is an extra buffer worth? Four layers in stage 2; the last one, with the vocabulary, is eight
# times as large. Who knows the waits can try any number of gradient buffers. Which is the last one
# that pays?

# %%
def with_buffers(num_buffers):
    layers = [Layer(name, 1.0, 2.0, (8 if name == "d" else 1,)) for name in "abcd"]
    how = {"zero_stage": 2, "gradient_buffers": num_buffers}
    tasks = two_buffers(layers, lambda size: size / 4, lambda size: size, 1, 1, **how)
    accesses = buffer_accesses(layers, **how)
    timeline = simulate(add_waits([replace(task, after=()) for task in tasks], accesses))
    starts = [timeline.span(f"backward {name}").start_s for name in "dcba"]
    return num_buffers, timeline.total_s, str(starts), 8 * num_buffers

if judge("09.1", add_waits).status == "passed":
    headers = ["gradient buffers", "step, s", "backwards of d, c, b, a begin at", "values held"]
    table(headers, [with_buffers(number) for number in (1, 2, 3, 4)], "Stage 2, four layers")
    print("The third removes a stall. With a fourth the last backward begins earlier, but its "
          "message stands in line, and the step is no shorter.")
else:
    print("Your turn: the table appears when exercise 09.1 passes.")

# %% [markdown]
# ## Exercise 09.2: find the overwrite
#
# *difficulty 3/5 - 10 minutes*
#
# Somebody else's schedule, and a loss that is wrong without any error. All you have is a log: who
# filled or used which buffer from when to when, in no particular order. Values are needed from the
# moment at which their filling begins to the end of their last use, also while nobody reads them.
# Another layer's filling that begins in between destroys them. One that begins exactly when the last
# use ends does no harm, and a layer may fill in its own values again.
#
# A use reads what the latest filling by its own layer has brought that began before the use.

# %%
def first_overwrite(log: list[Use]) -> tuple[str, str, float] | None:
    """(the task that overwrites, a task that needed the values, when the former began) or None.

    Each entry has `task`, `buffer`, `layer` (whose values), `fills` (True: it fills the buffer,
    False: it uses it), `start_s` and `end_s`. The first overwrite in time is asked for; if it hurts
    several tasks, name any of these.
    """
    ### BEGIN SOLUTION
    found = []
    for use in log:
        if use.fills:
            continue
        fills = [each for each in log if each.fills and each.buffer == use.buffer]
        since_s = max(each.start_s for each in fills
                      if each.layer == use.layer and each.start_s < use.start_s)
        found += [(each.start_s, each.task, use.task) for each in fills
                  if each.layer != use.layer and since_s < each.start_s < use.end_s]
    if not found:
        return None
    start_s, who, whom = min(found)
    return who, whom, start_s
    ### END SOLUTION

# %% [markdown]
# Nine logs, four of them without an overwrite:

# %%
check("09.2", first_overwrite)
# hint("09.2")

# %% [markdown]
# How dangerous is one forgotten wait? Take the lesson's schedule, with its one stream of messages and
# with gathers on a stream of their own, forget one wait of a gather at a time, and look:

# %%
def log_without(tasks, accesses, forgotten):
    tasks = [replace(task, after=()) if task.name == forgotten else task for task in tasks]
    spans = {span.task.name: span for span in simulate(tasks).spans}
    return [Use(each.task, each.buffer, each.content, each.writes, spans[each.task].start_s,
                spans[each.task].end_s) for each in accesses]

def harm(tasks, accesses, forgotten):
    found = first_overwrite(log_without(tasks, accesses, forgotten))
    return "nothing" if found is None else f"{found[1]} is wrong"

if judge("09.2", first_overwrite).status == "passed":
    layers = [Layer(name, 1.0, 2.0, (1,)) for name in "abcde"]
    one = two_buffers(layers, lambda _: 0.5, lambda _: 1.0, 1, 1)
    two = [replace(task, stream=task.name.split()[0]) if "gather" in task.name else task
           for task in one]
    names = [task.name for task in one if task.name.startswith("gather") and task.after]
    rows = [(name, *(harm(tasks, buffer_accesses(layers), name) for tasks in (one, two)))
            for name in names]
    table(["forgets to wait", "one stream", "two streams"], rows, "One wait forgotten")
    print("In one stream, a gather of backward stands behind a reduction and comes late enough. "
          "That is luck, and ends when somebody gives gathers a stream of their own.")
else:
    print("Your turn: the table appears when exercise 09.2 passes.")

# %% [markdown]
# ## Exercise 09.3: room for all layers
#
# *difficulty 3/5 - 12 minutes*
#
# The lesson's buffers are all as large as the largest layer. Where layers are unequal, that is too
# much: buffer 0 serves layers 0, 2, 4, ..., and need only be as large as the largest of *these*.
#
# Say for any model what travels together, who takes which buffer, and how large each is. Norms travel
# apart, all in one unit, which is gathered once and lives in memory of its own. A unit is padded to a
# multiple of the number of ranks. On two ranks, layers of 71, 38 and 269 values (beside norms) take
# buffers 0, 1 and 0, of 270 and 38 values.

# %%
def plan_buffers(
    layers: list[dict[str, int]], world_size: int, num_buffers: int
) -> tuple[list[list[str]], list[int | None], list[int]]:
    """(units, places, sizes) for YaFSDP.

    layers[k] has the number of values of each parameter of layer k; those with "norm" in their name
    are norms'. units: lists of names, one for each layer in order, then one for all norms, if there
    are any. places[j]: the number of the buffer that unit j takes in its turn, None for norms.
    sizes: values of each buffer, no more than needed; there are not more buffers than layers.
    """
    ### BEGIN SOLUTION
    units = [[name for name in layer if "norm" not in name] for layer in layers]
    norms = [name for layer in layers for name in layer if "norm" in name]
    count = min(num_buffers, len(layers))
    places = [k % count for k in range(len(layers))]
    sizes = [0] * count
    for place, layer, unit in zip(places, layers, units, strict=True):
        num_values = sum(layer[name] for name in unit)
        padded = -(-num_values // world_size) * world_size
        sizes[place] = max(sizes[place], padded)
    if norms:
        units.append(norms)
        places.append(None)
    return units, places, sizes
    ### END SOLUTION

# %% [markdown]
# Your plan replaces the lesson's: five models train by it on two and three ranks. Weights are
# compared with one process, collectives and bytes with what the best plan needs:

# %%
check("09.3", plan_buffers)
# hint("09.3")

# %% [markdown]
# What does that save? Blocks of attention and of a wide feed-forward part in turn, as separate
# layers, with Llama 2 70B's numbers; weights in bf16, gradients in fp32. Why is nothing saved with
# three buffers?

# %%
def buffer_gb(layers, num_buffers):
    _, _, sizes = plan_buffers(layers, 64, num_buffers)
    of_all = len(sizes) * max(sizes)
    return num_buffers, *(f"{6 * values / 1e9:.2f} GB" for values in (of_all, sum(sizes)))

attention = {"qkv": 8192 * (8192 + 2 * 1024), "out": 8192 * 8192, "norm": 8192}
feed_forward = {"up": 2 * 8192 * 28672, "down": 28672 * 8192, "norm": 8192}
pairs = [{f"{k}.{part}.{name}": size for name, size in each.items()} for k in range(80)
         for part, each in (("attention", attention), ("feed-forward", feed_forward))]
if judge("09.3", plan_buffers).status == "passed":
    rows = [buffer_gb(pairs, number) for number in (2, 3, 4)]
    table(["buffers of each kind", "as large as the largest layer", "your sizes"], rows,
          "160 unequal layers on 64 ranks")
    print("3 is odd: in turn, each buffer meets both kinds of layers.")
else:
    print("Your turn: the table appears when exercise 09.3 passes.")

# %% [markdown]
# ## Exercise 09.4: divide once
#
# *difficulty 4/5 - 12 minutes*
#
# The gradient side, for several micro-batches. Backward *adds* to a buffer, in 16 bits. The buffer
# leaves, and must not change before its message is over; meanwhile the next layer fills another one.
# Sums over ranks arrive in fp32, a shard each, and there the micro-batches add up.
#
# When should one divide? In fp16 nothing is smaller than 6e-8: divided before the sum, small
# gradients become zero, and in bf16 each division rounds. Divide once, at the end.

# %%
def mean_of_step(
    fill: Callable, num_layers: int, num_micro: int,
    buffers: list[Tensor], start_sum: Callable, world_size: int,
) -> list[Tensor]:
    """This rank's shard of each layer's gradient: the mean over ranks and micro-batches, fp32 [S].

    fill(micro, layer, buffer_P) is the backward of a layer; it adds to what the buffer holds. Call
    it for each micro-batch, from layer num_layers - 1 down to 0. start_sum(buffer_P) begins to sum
    over ranks; its result's wait() returns this rank's part of the sum, fp32 [S]. Use all buffers
    in turn, and wait for a message when its buffer is needed again, not earlier. Keep no more than
    one sum for each layer.
    """
    ### BEGIN SOLUTION
    sums = [torch.zeros(buffers[0].numel() // world_size) for _ in range(num_layers)]
    under_way = [None] * len(buffers)
    def finish(place: int) -> None:
        if under_way[place] is not None:
            layer, message = under_way[place]
            sums[layer] += message.wait()
            under_way[place] = None
    turn = 0
    for micro in range(num_micro):
        for layer in reversed(range(num_layers)):
            place = turn % len(buffers)
            finish(place)
            fill(micro, layer, buffers[place].zero_())
            under_way[place] = layer, start_sum(buffers[place])
            turn += 1
    for place in range(len(buffers)):
        finish(place)
    return [each / (world_size * num_micro) for each in sums]
    ### END SOLUTION

# %% [markdown]
# Three ranks, messages that read their buffer as late as they may. Are all shards right?

# %%
check("09.4", mean_of_step)
# hint("09.4")

# %% [markdown]
# ## Exercise 09.5: what a buffer is worth
#
# *difficulty 4/5 - 10 minutes, optional*
#
# Before you write a schedule, predict its gain. In forward, gathers follow each other in one stream
# and layers in another. With n buffers, the gather of layer k also waits until layer k - n has
# computed. So two gathers of 1 s and two layers of 2 s take 6 s with one buffer and 5 s with two:
# 17 % less time, which is 20 % more throughput. Lesson 09 warned of mixing these up.
#
# How many buffers are worth their bytes?

# %%
def choose_buffers(
    gather_s: list[float], compute_s: list[float], layer_bytes: list[int]
) -> tuple[int, int, float, float]:
    """(buffers, their bytes, percent less time, percent more throughput) of a forward.

    Entry k of each list is layer k's. The fewest buffers are asked for with which forward ends as
    early as with one for each layer. Layers take them in turn; each is as large as the largest of
    its users. Both percentages are in comparison with a single buffer.
    """
    ### BEGIN SOLUTION
    num_layers = len(gather_s)

    def forward_s(count: int) -> float:
        gathered_s, ends_s = 0.0, []
        for k in range(num_layers):
            free_s = ends_s[k - count] if k >= count else 0.0
            gathered_s = max(gathered_s, free_s) + gather_s[k]
            ends_s.append(max(gathered_s, ends_s[-1] if ends_s else 0.0) + compute_s[k])
        return ends_s[-1]

    one_s, best_s = forward_s(1), forward_s(num_layers)
    count = next(n for n in range(1, num_layers + 1) if forward_s(n) <= best_s)
    num_bytes = sum(max(layer_bytes[place::count]) for place in range(count))
    return count, num_bytes, 100 * (1 - best_s / one_s), 100 * (one_s / best_s - 1)
    ### END SOLUTION

# %% [markdown]
# Six models, beside the simulator:

# %%
check("09.5", choose_buffers)
# hint("09.5")

# %% [markdown]
# 32 layers of 1 s each: for which gathers is a second buffer worth most?

# %%
def gain_row(gather_s):
    count, _, less, more = choose_buffers([gather_s] * 32, [1.0] * 32, [1] * 32)
    return gather_s, count, f"{less:.1f} %", f"{more:.1f} %"

if judge("09.5", choose_buffers).status == "passed":
    rows = [gain_row(gather_s) for gather_s in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)]
    table(["a gather, s", "buffers", "less time", "more throughput"], rows, "One forward")
else:
    print("Your turn: the table appears when exercise 09.5 passes.")

# %% [markdown]
# Overlap never saves more than the shorter of the two streams: half of the time, where both are
# equally long. The lesson's published gains are smaller, since FSDP overlaps, too.
#
# ## Where you stand
#
# All passed? Then you can give any schedule its waits, find the one that is missing in somebody
# else's, and say how much memory it needs and what that buys:

# %%
progress("lab_09")
