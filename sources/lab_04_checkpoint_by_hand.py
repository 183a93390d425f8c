# %% [markdown]
# # Lab 04: replay, checkpoint, cut and count on your own
#
# Five exercises on [lesson 04](../notebooks/04_checkpoint_by_hand.ipynb), about 70 minutes.
# Complete each function and run the check right below it. The checks bring layers, chains and
# shapes that you have not seen, count every run, and read bytes off the meter. Run All works at any
# time; what you have not touched says *not attempted yet*. Stuck? Remove the `#` before a `hint`;
# a second, longer one is `hint("04.1", 2)`.
#
# The usual first cell, then all that you may use:

# %%
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
sys.path.insert(0, str(next(folder for folder in folders if (folder / "utils").is_dir())))

# %%
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from utils.checks import check, hint, progress
from utils.checks.engine import judge
from utils.checks.truth_04 import lengths_text, num_wrong_gradients
from utils.checks.truth_04_loop import report_rows
from utils.config import PRESETS
from utils.measured import table
from utils.plots import bytes_text
from utils.predict import block_activation_bytes
from utils.saved import saved_for_backward
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.replay import ReplayState
from utils.timing import use_one_thread

use_one_thread()

# %% [markdown]
# ## Exercise 04.1: the draws that torch forgets
#
# *difficulty 2/5 - 10 minutes*
#
# With stochastic depth a layer sits out by chance:
# `return x + work(x) if random.random() < 0.5 else x`. The lesson's `ReplayState` and torch's
# checkpoint bring back torch's default generators, but this is Python's. Eight such layers run in
# torch's checkpoint without a warning. In how many is the gradient wrong?

# %%
by_torch = partial(checkpoint, use_reentrant=True)
print(f"wrong in {num_wrong_gradients(by_torch)} of 8 layers")

# %% [markdown]
# Replay every stream that a layer may draw from, generators of its own among them:

# %%
def make_replay(*generators: torch.Generator) -> Callable[[], AbstractContextManager]:
    """Note where Python's `random`, torch's default generator and `generators` stand now.

    Returns `replay`. Inside each `with replay():` all of them draw as they would have drawn from
    the noted moment on; after it they go on as if the block had not been, also when it raised.
    Blocks may be repeated and nested.
    """
    ### BEGIN SOLUTION
    sources = (torch.default_generator, *generators)

    def read() -> tuple:
        return random.getstate(), [source.get_state() for source in sources]

    def write(state: tuple) -> None:
        random.setstate(state[0])
        for source, each in zip(sources, state[1], strict=True):
            source.set_state(each)

    noted = read()

    @contextmanager
    def replay() -> Iterator[None]:
        found = read()
        write(noted)
        try:
            yield
        finally:
            write(found)

    return replay
    ### END SOLUTION

# %%
check("04.1", make_replay)
# hint("04.1")

# %% [markdown]
# torch's checkpoint takes your blocks: `context_fn` gives it one for the first run and one for the
# second. In how many layers is the gradient wrong now?

# %%
def with_my_replay(layer: nn.Module, x: Tensor) -> Tensor:
    contexts = nullcontext(), make_replay()()
    return checkpoint(layer, x, use_reentrant=False, context_fn=lambda: contexts)

if judge("04.1", make_replay).status == "passed":
    print(f"wrong in {num_wrong_gradients(with_my_replay)} of 8 layers")
else:
    print("Your turn: the answer appears when exercise 04.1 passes.")

# %% [markdown]
# ## Exercise 04.2: a checkpoint for real layers
#
# *difficulty 4/5 - 20 minutes*
#
# The lesson's `autograd.Function` refuses `torch.autograd.grad`: it takes one function, and cannot
# tell which weights are asked for. A module knows its weights, so hand them to `apply`, inputs like
# any other. Real layers also take masks, numbers and keywords (a keyword's tensor wants its
# gradient, too), return several tensors, some of them integers, and have frozen weights.
#
# Fill in all three places. `ctx.save_for_backward` takes tensors or None, and
# `ctx.needs_input_grad` has an entry for every argument of `apply`. The layer may run exactly
# twice, and nothing but its inputs and results may wait for backward:

# %%
class RunTwice(torch.autograd.Function):
    """`RunTwice.apply(run, num_values, *values, *weights)` is `run(*values)`, checkpointed."""

    @staticmethod
    def forward(ctx: Any, run: Callable, num_values: int, *values_and_weights: Any) -> Any:
        """Run without a graph; note what the second run needs."""
        ### BEGIN SOLUTION
        values = values_and_weights[:num_values]
        ctx.run, ctx.weights, ctx.replay = run, values_and_weights[num_values:], make_replay()
        ctx.others = [None if isinstance(v, Tensor) else v for v in values]
        ctx.save_for_backward(*[v if isinstance(v, Tensor) else None for v in values])
        return run(*values)
        ### END SOLUTION

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple:
        """Run again, with a graph; return a gradient or None for each argument of `apply`."""
        ### BEGIN SOLUTION
        needed = ctx.needs_input_grad[2:]
        saved = zip(ctx.saved_tensors, ctx.others, needed, strict=False)
        values = [v if t is None else t.detach().requires_grad_(n) for t, v, n in saved]
        with torch.enable_grad(), ctx.replay():
            results = ctx.run(*values)
        results = results if isinstance(results, tuple) else (results,)
        pairs = zip(results, gradients, strict=True)
        roots = [(result, g) for result, g in pairs if result.requires_grad]
        wanted = [t for t, n in zip((*values, *ctx.weights), needed, strict=True) if n]
        results, gradients = zip(*roots, strict=True)
        found = iter(torch.autograd.grad(results, wanted, gradients, allow_unused=True))
        return None, None, *(next(found) if n else None for n in needed)
        ### END SOLUTION


# %%
def checkpoint_module(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """module(*args, **kwargs), keeping nothing for backward but its tensor arguments.

    Arguments are tensors or other values, not nested; the result is a tensor or a tuple of them.
    Gradients, dropout and `torch.autograd.grad` work as without a checkpoint.
    """
    ### BEGIN SOLUTION
    def run(*values: Any) -> Any:
        named = dict(zip(kwargs, values[len(args) :], strict=True))
        return module(*values[: len(args)], **named)

    values = (*args, *kwargs.values())
    return RunTwice.apply(run, len(values), *values, *module.parameters())
    ### END SOLUTION

# %%
check("04.2", checkpoint_module)
# hint("04.2")

# %% [markdown]
# ## Exercise 04.3: the fewest blocks to run again
#
# *difficulty 3/5 - 15 minutes*
#
# The lesson cuts a chain into equal segments and runs all of them again. Within a budget you can do
# better. Backward wants the last part first, so that one can keep everything and need not run
# again. The other parts run again one after the other, the last of them first, and need not be
# equally long: while one does, all tensors of its blocks are alive, and beside them the inputs of
# *some* parts. Of which?
#
# The check carries your cuts out under the meter, and knows the fewest:

# %%
def cut_chain(
    num_blocks: int, block_bytes: int, input_bytes: int, room_bytes: int
) -> list[int]:
    """Lengths of parts such that the fewest blocks run again; an empty list if none fit.

    Every part but the last keeps only its input (`input_bytes`) and runs again, as a whole; the
    last keeps everything. A block that keeps everything takes `block_bytes`, its own input
    included. At no moment may all this take more than `room_bytes`.
    """
    ### BEGIN SOLUTION
    lengths = []
    while sum(lengths) < num_blocks:
        left_bytes = room_bytes - len(lengths) * input_bytes  # inputs of the parts before
        lengths.append(left_bytes // block_bytes)
        if lengths[-1] < 1:
            return []
    surplus = sum(lengths) - num_blocks
    for k in range(len(lengths)):  # the last part stays as long as it can be
        shorter = max(lengths[k] - surplus, 1)
        surplus -= lengths[k] - shorter
        lengths[k] = shorter
    return lengths
    ### END SOLUTION

# %%
check("04.3", cut_chain)
# hint("04.3")

# %% [markdown]
# Forward is a third of a step's FLOPs, so running all blocks again costs 33 %. What does GPT-2 (1.5
# billion weights, 48 blocks, one sequence) pay for a half or a sixteenth of its activations?

# %%
gpt2 = PRESETS["gpt2-1.5b"]
num_blocks, tokens = gpt2.num_layers, gpt2.context_length
block = block_activation_bytes(gpt2, 1, tokens)

def cut_row(divisor):
    room = num_blocks * block // divisor
    lengths = cut_chain(num_blocks, block, 4 * tokens * gpt2.model_dim, room)
    again = num_blocks - lengths[-1]
    return f"1/{divisor}", bytes_text(room), lengths_text(lengths), f"{again / num_blocks / 3:.0%}"

if judge("04.3", cut_chain).status == "passed":
    rows = [cut_row(divisor) for divisor in (1, 2, 4, 8, 16)]
    table(["of all bytes", "room", "parts x blocks each", "more FLOPs"], rows, "GPT-2 in a budget")
else:
    print("Your turn: the table appears when exercise 04.3 passes.")

# %% [markdown]
# ## Exercise 04.4: the bill of a parallel block
#
# *difficulty 3/5 - 10 minutes*
#
# In PaLM (arXiv 2204.02311) attention and a gated feed-forward layer work side by side, and all
# heads share one key and one value. The lesson's formulas do not cover such a block:

# %%
# show: utils.checks.truth_04.ParallelBlock

# %% [markdown]
# How many bytes does a chain of them keep for backward, at the moment when that is most? In fp32,
# with the input of the first block, without the output of the last. Both numbers, to the byte, for
# three shapes that you have not seen:

# %%
def parallel_chain_bytes(
    num_blocks: int, batch_size: int, num_tokens: int, model_dim: int, num_heads: int,
    hidden_dim: int,
) -> tuple[int, int]:
    """Bytes kept for backward: plain, and with each block checkpointed by itself.

    The second: when the last block has just run again.
    """
    ### BEGIN SOLUTION
    norm = 3 * model_dim + 1  # x, x / rms, their product with the weight; 1 / rms
    attention = 2 * model_dim + 2 * (model_dim // num_heads) + num_heads
    per_token = norm + attention + 4 * hidden_dim
    value_bytes = 4 * batch_size * num_tokens
    plain = num_blocks * value_bytes * per_token
    return plain, value_bytes * (per_token + (num_blocks - 1) * model_dim)
    ### END SOLUTION

# %%
check("04.4", parallel_chain_bytes)
# hint("04.4")

# %% [markdown]
# ## Exercise 04.5: a colleague's segments
#
# *difficulty 4/5 - 15 minutes*
#
# `layers` are a GPT's embedding, its blocks, and its loss. Each segment is to run again, except the
# last one, for the reason that you know from 04.3. Her code runs without an error:

# %%
def colleagues_loss(layers: Sequence[Callable], tokens_BT: Tensor, length: int) -> Tensor:
    embed, *blocks, loss = layers
    x_BTD, start = embed(tokens_BT), 0

    def run_segment(x_BTD: Tensor) -> Tensor:
        for block in blocks[start : start + length]:
            x_BTD = block(x_BTD)
        return x_BTD

    while start < len(blocks) - length:
        x_BTD = checkpoint(run_segment, x_BTD, use_reentrant=True, preserve_rng_state=False)
        start += length
    return loss(x_BTD)

# %% [markdown]
# Four blocks in segments of two, with dropout. Which blocks ran when, and are their gradients those
# of the plain run, with the embeddings trained or frozen?

# %%
columns = ["", "runs in forward", "in backward", "gradients", "if embeddings are frozen"]
table(columns, report_rows(colleagues_loss), "A colleague's run")

# %% [markdown]
# Blocks that run only in backward, and gradients that are missing altogether: there are four bugs,
# and none of them raises. Write the loss that she meant. The order of all runs, random numbers,
# gradients and bytes are checked on six chains:

# %%
def segmented_loss(layers: Sequence[Callable], tokens_BT: Tensor, length: int) -> Tensor:
    """The chain's loss; each segment but the last keeps only its input and runs again.

    Segments have `length` blocks, the last one may be shorter. Loss and gradients are those of the
    plain chain, with dropout and whatever is frozen.
    """
    ### BEGIN SOLUTION
    embed, *blocks, loss = layers
    segments = [blocks[start : start + length] for start in range(0, len(blocks), length)]

    def run_segment(segment: Sequence[Callable], x_BTD: Tensor) -> Tensor:
        for block in segment:
            x_BTD = block(x_BTD)
        return x_BTD

    x_BTD = embed(tokens_BT)
    for segment in segments[:-1]:
        x_BTD = checkpoint(partial(run_segment, segment), x_BTD, use_reentrant=False)
    return loss(run_segment(segments[-1], x_BTD))
    ### END SOLUTION

# %%
check("04.5", segmented_loss)
# hint("04.5")

# %% [markdown]
# ## Where you stand
#
# All five passed? Then you can checkpoint what torch's own checkpoint gets wrong, and prove that
# nothing but memory has changed:

# %%
progress("lab_04")
