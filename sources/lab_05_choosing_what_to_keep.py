# %% [markdown]
# # Lab 05: keep, drop or move, and what it is worth
#
# Five exercises on [lesson 05](../notebooks/05_choosing_what_to_keep.ipynb), about 75 minutes.
# Complete each function and run the check right below it. The checks bring blocks, budgets and
# prices that you have not seen, and count bytes, FLOPs and runs. Run All works at any time; what
# you have not touched says *not attempted yet*. Stuck? Remove the `#` before a `hint`; a second,
# longer one is `hint("05.1", 2)`. First, all that you may use:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, UntypedStorage, nn

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.truth_05 import Call, calls_of, shares
from utils.checks.truth_05_menus import Option, highest_peak, measured_menus, picked
from utils.checks.truth_05_models import build_blocks, random_input
from utils.checks.truth_05_money import step_usd
from utils.checks.truth_05_rent import aws_machines, gpt2_techniques
from utils.config import GPTConfig
from utils.measured import table
from utils.plots import bytes_text
from utils.techniques.offload import Store
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 05.1: a policy that asks for the price
#
# *difficulty 2/5 - 10 minutes*
#
# The lesson's policies know an operation by its name. With more tokens than width, names no longer
# do: linear layers alone make attention's core run again, which is now too much work, and its two
# products are both called `bmm`. Every call of one block, views left out, and what two policies by
# name lead to:

# %%
config = GPTConfig(1, 32, 128, 192, attention="explicit")
blocks, x_BTD = build_blocks(config), random_input(config)
rows = [(call.name, bytes_text(call.num_bytes), call.flops) for call in calls_of(blocks[0], x_BTD)]
table(["operation", "size of its result", "FLOPs"], rows, "One block: 192 tokens, 32 heads")

by_name = {"every product": lambda call: call.flops > 0, "addmm": lambda call: call.name == "addmm"}
for name, keep in by_name.items():
    kept, again = shares(blocks, x_BTD, keep)
    print(f"keep {name}: {kept:.1%} of the plain step's bytes, {again:.1%} of its FLOPs again")

# %% [markdown]
# torch's own policies also see an operation's arguments, and can tell large results from small
# ones. Write one for blocks with many narrow heads: at most 22 % of the bytes that a plain step
# keeps, at most 5 % of its FLOPs again. `shares(blocks, x_BTD, policy)` tries yours on this block.

# %%
def policy(call: Call) -> bool:
    """True to keep the call's result for backward, False to make it again.

    `call.name` is the operation ("addmm", "bmm"), `call.num_bytes` the size of its fp32 result,
    `call.flops` the work behind it: 0 for everything that is no product.
    """
    ### BEGIN SOLUTION
    return call.flops >= 16 * call.num_bytes
    ### END SOLUTION

# %% [markdown]
# Other widths; no biases and shared key heads; low-rank adapters, as in LoRA, beside every linear
# layer. Does your policy ask for the price, or for names and sizes that it knows?

# %%
check("05.1", policy)
# hint("05.1")

# %% [markdown]
# ## Exercise 05.2: a menu for each layer
#
# *difficulty 3/5 - 20 minutes*
#
# The lesson's optimum could not choose policies, and its policies were one choice for all layers.
# Now each layer has a menu: plain, selective, full. An `Option` on it has a `name`, `kept_bytes`
# (from forward to backward), `peak_bytes` (the most while the layer itself runs, what it keeps
# included) and `again_flops`. Numbers differ from layer to layer, and so do the best options. Forty
# layers have more choices than anyone can try:

# %%
def choose_options(menus: list[list[Option]], budget_bytes: int) -> list[int] | None:
    """For each layer the number of its option: the fewest `again_flops` in all.

    While layer k runs, forward or backward, memory holds the `kept_bytes` of all layers before it
    and the `peak_bytes` of its own option. That is never more than `budget_bytes`; None if no
    choice fits.
    """
    ### BEGIN SOLUTION
    @cache
    def best(k: int, left: int) -> tuple[float, tuple[int, ...]]:
        """FLOPs and choice for the layers from k on, with `left` bytes for them."""
        if k == len(menus):
            return 0, ()
        found = [(math.inf, ())]
        for number, option in enumerate(menus[k]):
            if option.peak_bytes <= left:
                flops, rest = best(k + 1, left - option.kept_bytes)
                found.append((option.again_flops + flops, (number, *rest)))
        return min(found)

    flops, choice = best(0, budget_bytes)
    return list(choice) if flops < math.inf else None
    ### END SOLUTION

# %% [markdown]
# Short chains against every choice, a long one, and four unequal blocks that run for real:

# %%
check("05.2", choose_options)
# hint("05.2")

# %% [markdown]
# Once it passes: which of the four real blocks stop being plain first when memory gets short? Their
# heads are 16, 4, 16, 8, their feed-forward layers 256, 512, 64, 256 wide. And why does the last one
# stay plain? What it keeps is needed at once by its own backward, and gone when the next one begins:

# %%
if judge("05.2", choose_options).status == "passed":
    menus, rows = measured_menus(), []
    plain_bytes = highest_peak([menu[0] for menu in menus])
    for share in (1.0, 0.9, 0.75, 0.6, 0.5):
        chosen = picked(menus, choose_options(menus, int(share * plain_bytes)))
        again = sum(option.again_flops for option in chosen)
        rows.append((f"{share:.0%}", *(option.name for option in chosen), again))
    headers = ["budget", *(f"block {k}" for k in range(len(menus))), "FLOPs again"]
    table(headers, rows, "The cheapest way to run each block, by budget (plain peak = 100 %)")
else:
    print("Your turn: the table appears when exercise 05.2 passes.")

# %% [markdown]
# ## Exercise 05.3: run a program
#
# *difficulty 3/5 - 15 minutes*
#
# The lesson's plans are brackets, run by nested checkpoints. A flat program can say more, such as
# dropping an input early and making it again later. For three layers and room for one input:
#
# ```
# ("store", 0)  ("load", 0)  ("advance", 0)  ("advance", 1)  ("backward", 2)
# ("load", 0)  ("advance", 0)  ("backward", 1)  ("load", 0)  ("backward", 0)
# ```
#
# The last layer's result is the loss, and it goes backward first. Write what runs such programs
# with plain torch: no checkpoint function, one graph at a time, and nothing alive that the program
# no longer needs. The layers draw no random numbers.

# %%
def run_program(
    actions: list[tuple[str, int]], layers: list[Callable], x: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, without its graph, and the gradient of `x`; `.grad` of all weights is added to.

    Input k is what layer k gets. One tensor is the current one: at first input 0, which is `x`.
    ("store", k): keep the current tensor, input k. ("load", k): take it. ("drop", k): forget it.
    ("advance", k): layer k turns the current tensor into input k + 1; nothing is saved.
    ("backward", k): run layer k on the current tensor and go backward through it; a load follows.
    """
    ### BEGIN SOLUTION
    def backward(layer: Callable, x: Tensor, gradient: Tensor | None, loss: Tensor | None):
        leaf = x.detach().requires_grad_()
        output = layer(leaf)
        torch.autograd.backward(output, gradient)
        return leaf.grad, output.detach() if loss is None else loss  # all other names die here

    stored, current, gradient, loss = {}, x, None, None
    for action, k in actions:
        if action == "store":
            stored[k] = current
        elif action == "load":
            current = stored[k]
        elif action == "drop":
            del stored[k]
        elif action == "advance":
            with torch.no_grad():
                current = layers[k](current)
        else:
            gradient, loss = backward(layers[k], current, gradient, loss)
    return loss, gradient
    ### END SOLUTION

# %% [markdown]
# Four programs: order of runs, gradients bit by bit, and what is alive whenever a layer runs:

# %%
check("05.3", run_program)
# hint("05.3")

# %% [markdown]
# ## Exercise 05.4: move only what does not fit
#
# *difficulty 4/5 - 20 minutes*
#
# The lesson moves everything, and every byte costs bandwidth. Set a limit instead: while the saved
# blocks in memory take more, the oldest one moves. It is needed last, so it has the most time to
# travel. A block is given, and so is the store (`put` and `get`, as in the lesson):

# %%
# show: utils.checks.truth_05_blocks.Block

# %% [markdown]
# You write the two functions for `torch.autograd.graph.saved_tensors_hooks`: `pack` gets each tensor
# that an operation saves, and the graph holds what it returns until backward is done with it;
# `unpack` turns that into a tensor of the same values, dtype, shape, strides and offset. A tensor's
# storage is `tensor.untyped_storage()`, and views share it. Small blocks move like large ones; no
# saved tensor is changed in place:

# %%
def limited_hooks(store: Store, model: nn.Module, memory_bytes: int) -> tuple[Callable, Callable]:
    """`pack` and `unpack` that serve many steps and hold nothing of a step that is over.

    After each pack the saved storages in memory, without those of weights and buffers, which stay,
    take at most `memory_bytes`. The one saved first moves first, each once, and no more than must.
    """
    ### BEGIN SOLUTION
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    blocks = []  # weak references, oldest first: only the graph keeps a block alive

    def pack(tensor: Tensor):
        storage = tensor.untyped_storage()
        if storage._cdata in weights:
            return tensor
        alive = [block for reference in blocks if (block := reference()) is not None]
        block = next((block for block in alive if block.is_of(storage)), None)
        if block is None:
            alive.append(block := Block(storage))
        blocks[:] = map(weakref.ref, alive)
        inside = [each for each in alive if each.in_memory]
        while sum(each.num_bytes for each in inside) > memory_bytes:
            inside.pop(0).move(store)
        return block, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()

    def unpack(packed) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        block, dtype, *place = packed
        return torch.empty(0, dtype=dtype).set_(block.storage(), *place)

    return pack, unpack
    ### END SOLUTION

# %% [markdown]
# fp32 and bf16, three limits, two steps each:

# %%
check("05.4", limited_hooks)
# hint("05.4")

# %% [markdown]
# ## Exercise 05.5: does it pay?
#
# *difficulty 2/5 - 10 minutes*
#
# Saved bytes are worth what they buy: a cheaper machine, or fewer and larger micro-batches. Which
# machine, technique and micro-batch train a batch for the fewest dollars?

# %%
# show: utils.checks.truth_05_money.Machine


# show: utils.checks.truth_05_money.Technique

# %% [markdown]
# A batch is accumulated from micro-batches, of which the last may be smaller. Each takes
# `seconds_per_micro_batch`, each sequence `seconds_per_sequence`; a machine of speed 2 needs half.
# In memory are the fixed bytes and those of one micro-batch.

# %%
def cheapest_choice(
    machines: list[Machine], techniques: list[Technique], batch_size: int
) -> tuple[str, str, int] | None:
    """Names of machine and technique, and sequences per micro-batch, for the fewest dollars.

    Of equal prices the one with the fewest bytes; None if nothing fits.
    """
    ### BEGIN SOLUTION
    found = []
    for machine in machines:
        for technique in techniques:
            for micro_batch in range(1, batch_size + 1):
                num_bytes = technique.fixed_bytes + micro_batch * technique.bytes_per_sequence
                if num_bytes > machine.memory_bytes:
                    break
                num_micro_batches = math.ceil(batch_size / micro_batch)
                seconds = num_micro_batches * technique.seconds_per_micro_batch
                seconds += batch_size * technique.seconds_per_sequence
                usd = seconds / machine.speed * machine.usd_per_hour / 3600
                found.append((usd, num_bytes, (machine.name, technique.name, micro_batch)))
    return min(found)[2] if found else None
    ### END SOLUTION

# %% [markdown]
# Sixty price lists:

# %%
check("05.5", cheapest_choice)
# hint("05.5")

# %% [markdown]
# Once it passes: GPT-2 1.5B with longer contexts, under autocast, on one A100 with 40 or 80 GB at
# AWS's prices of 2026-11-09. Assumed: 40 % of the peak rate, no working memory, and micro-batches
# that cost no seconds of their own. Where does checkpointing every block pay?

# %%
if judge("05.5", cheapest_choice).status == "passed":
    rows, machines = [], {machine.name: machine for machine in aws_machines()}
    for num_tokens in (1024, 4096, 16384, 32768):
        techniques = {each.name: each for each in gpt2_techniques(num_tokens)}
        names = cheapest_choice([*machines.values()], [*techniques.values()], 16)
        usd = step_usd((machines[names[0]], techniques[names[1]], names[2]), 16)
        rows.append((num_tokens, *names, f"${usd / 16 / num_tokens * 1e6:.3f}"))
    headers = ["context", "machine", "technique", "sequences at once", "USD per million tokens"]
    table(headers, rows, "The cheapest way to train on 16 sequences")
else:
    print("Your turn: the table appears when exercise 05.5 passes.")

# %% [markdown]
# Only in the last row, where even 80 GB do not hold one sequence. Twice the memory costs 25 % more,
# running the blocks again about 32 %: here the larger machine is the cheaper technique. With other
# prices it is not, and now you can tell.
#
# ## Where you stand
#
# All five passed? Then you choose what to keep by its price:

# %%
progress("lab_05")
