"""Wrong answers to lab 04, made from switches: each switch is one mistake that learners make."""

import random
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from tests.lab_source import solution_functions
from utils.techniques.checkpointing import checkpoint_by_hooks

LAB = "lab_04_checkpoint_by_hand"
right = solution_functions(LAB)


def replaying(
    *, python=True, default=True, own=slice(None), back="found", final=True, once=False,
    lazy=False, seed=None, swallow=False, shared=False, used_up=False, bare=False,
):
    """The solution of 04.1 with one mistake."""

    def make_replay(*generators):
        sources = [torch.default_generator] * default + list(generators[own])

        def read():
            return random.getstate(), [source.get_state() for source in sources]

        def write(state):
            if python:
                random.setstate(state[0])
            for source, each in zip(sources, state[1], strict=True):
                source.set_state(each)

        if seed == "noting":
            torch.manual_seed(0)
        noted, common = None if lazy else read(), []

        def leave(found):
            nonlocal noted
            noted = read() if used_up else noted
            if back != "nothing":
                write(common[0] if shared else found if back == "found" else noted)

        @contextmanager
        def replay():
            nonlocal noted
            noted, found = noted or read(), read()
            common[:] = [found]
            write(noted)
            if seed == "block":
                torch.manual_seed(0)
            try:
                yield
            except Exception:
                if not final:
                    raise
                leave(found)
                if not swallow:
                    raise
            else:
                leave(found)

        block = replay()
        return block if bare else (lambda: block) if once else replay

    return make_replay


def cutting(*, count=lambda k, n: k, keep_last=True, change=lambda lengths: lengths):
    """The solution of 04.3 with another count of living inputs, or with its lengths changed."""

    def cut_chain(num_blocks, block_bytes, input_bytes, room_bytes):
        for num_parts in range(1, num_blocks + 1):
            inputs = [count(k, num_parts) for k in range(num_parts)]
            lengths = [int((room_bytes - k * input_bytes) // block_bytes) for k in inputs]
            if min(lengths) < 1:
                return []
            surplus = sum(lengths) - num_blocks
            for k in range(num_parts) if surplus >= 0 else ():
                order = k if keep_last else num_parts - 1 - k
                shorter = max(lengths[order] - surplus, 1)
                surplus, lengths[order] = surplus - lengths[order] + shorter, shorter
            if surplus == 0:
                return change(lengths)
        return []

    return cut_chain


def equal_segments(num_blocks, block_bytes, input_bytes, room_bytes):
    """The lesson's rule: the number of equal segments with the least peak, if that fits."""
    def peak(count):
        return count * input_bytes + -(-num_blocks // count) * block_bytes

    best = min(range(1, num_blocks + 1), key=peak)
    shorter, longer = divmod(num_blocks, best)
    return [shorter] * (best - longer) + [shorter + 1] * longer


def bill(*, hidden=5, tokens=1, shared=2, heads=1, wide=4, scores=False, each=4, blocks=1,
         kept=lambda n: n - 1, second=None):  # fmt: skip
    """The solution of 04.4 with other counts per token; `kept` inputs beside one block."""

    def parallel_chain_bytes(num_blocks, batch, num_tokens, width, num_heads, hidden_dim):
        per_token = hidden * width + tokens + shared * width // num_heads + wide * hidden_dim
        per_token += num_heads * (num_tokens if scores else heads)
        values = batch * num_tokens
        plain = each * values * per_token * (num_blocks if blocks else 1)
        checkpointed = each * values * (per_token + kept(num_blocks) * width)
        return plain, second(values, width, num_blocks) if second else checkpointed

    return parallel_chain_bytes


def in_segments(
    *, skip_last=False, stale=False, restore=True, last_too=False, reentrant=False, again=True,
    twice=False, size=lambda length: length, cut=False, extra=False,
):
    """The solution of 04.5 with one mistake."""
    once = partial(checkpoint, use_reentrant=reentrant, preserve_rng_state=restore)

    def segmented_loss(layers, tokens_BT, length):
        embed, *blocks, loss = layers
        length = max(1, size(length))
        parts = [blocks[start : start + length] for start in range(0, len(blocks), length)]
        now = [parts[0]]

        def run(part, x_BTD):
            for block in now[0] if stale else part:
                x_BTD = block(x_BTD)
            return x_BTD

        def run_through(part, x_BTD):
            return once(partial(run, part), x_BTD) if twice else run(part, x_BTD)

        x_BTD = embed(tokens_BT)
        x_BTD = x_BTD.detach() if cut else x_BTD
        last = [] if last_too else parts.pop()
        for part in parts:
            now[0] = part
            x_BTD = once(partial(run_through, part), x_BTD) if again else run(part, x_BTD)
            x_BTD = x_BTD * 1.001 if extra else x_BTD
        now[0] = last
        return loss(x_BTD if skip_last else run(last, x_BTD))

    return segmented_loss


def each_block_alone(layers, tokens_BT, length):
    embed, *blocks, loss = layers
    x_BTD, num_kept = embed(tokens_BT), (len(blocks) - 1) % length + 1
    for block in blocks[:-num_kept]:
        x_BTD = checkpoint_by_hooks(block, x_BTD)
    for block in blocks[-num_kept:]:
        x_BTD = block(x_BTD)
    return loss(x_BTD)


def keeps_squares(layers, tokens_BT, length):
    """Right but for one more saved tensor per segment."""
    loss = right["segmented_loss"]
    embed, *rest = layers

    def wider(tokens):
        x_BTD = embed(tokens)
        return x_BTD + 0.0 * x_BTD.clone().sin().sin().sum()

    return loss([wider, *rest], tokens_BT, length)
