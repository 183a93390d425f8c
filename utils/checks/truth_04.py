"""What lab 04's judges compare with: gradients without a checkpoint, chains under the meter.

How it works: `undisturbed` shields a truth from what a learner's code may have left switched off.
The chain of equal blocks is a toy whose peak is exact in two numbers, so that a plan's bytes can be
required to the last one; the parallel block is real, and its bytes are read off autograd.

Shape suffixes: B batch, T tokens, D model width, F feed-forward width, H heads, K head width.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.memory import MemoryMeter
from utils.saved import saved_bytes
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.segments import Plan, run_plan

Run = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
NUM_SKIPPING, BLOCK_VALUES = 8, 1000
INPUT_BYTES = 4 * BLOCK_VALUES


@contextmanager
def undisturbed() -> Iterator[None]:
    """Grad mode on, tensors in fp32, and random numbers outside as they were."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_default_dtype(dtype)


class SkippingLayer(nn.Module):
    """Stochastic depth: Python's `random` decides whether the layer works or lets x pass."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x -> x, or x with something added."""
        return x + torch.tanh(self.linear(x)) if random.random() < 0.5 else x


def num_wrong_gradients(run: Run) -> int:
    """How many of eight skipping layers get a wrong gradient when `run(layer, x)` calls them."""
    truth, got = (_skipping_gradients(each) for each in (lambda layer, x: layer(x), run))
    return sum(not torch.equal(*pair) for pair in zip(truth, got, strict=True))


def _skipping_gradients(run: Run) -> list[Tensor]:
    state = random.getstate()
    with undisturbed():
        torch.random.default_generator.manual_seed(0)
        random.seed(3)
        layers = [SkippingLayer() for _ in range(NUM_SKIPPING)]
        y = torch.ones(2, 16, requires_grad=True)
        for layer in layers:
            y = run(layer, y)
        y.sum().backward()
    random.setstate(state)
    weights = [layer.linear.weight for layer in layers]
    return [torch.zeros(16, 16) if weight.grad is None else weight.grad for weight in weights]


def wavy_blocks(num_blocks: int, depth: int) -> list[Callable[[Tensor], Tensor]]:
    """Equal blocks of `depth` sines: each keeps `depth` tensors of INPUT_BYTES, x among them."""

    def block(x: Tensor) -> Tensor:
        for _ in range(depth):
            x = x.sin()
        return x

    return [block] * num_blocks


def chain_peak_bytes(plan: Plan, num_blocks: int, depth: int) -> int:
    """Highest bytes of kept tensors while a chain of wavy blocks runs by `plan`, under the meter.

    A step also holds three gradients at work and the loss; these are the same for every plan and
    not counted. Exact for `depth` of at least 2.
    """
    x, gradient, factor = (torch.ones(BLOCK_VALUES) for _ in range(3))
    x.requires_grad_().grad = gradient
    with undisturbed(), MemoryMeter() as meter:
        meter.label("parameters", gradient, factor)
        y = run_plan(plan, wavy_blocks(num_blocks, depth), x, checkpoint_by_hooks)
        loss = (y * factor).sum()
        del y
        loss.backward()
    at_work_bytes = 3 * INPUT_BYTES + 8  # of the sine that goes backward; the loss, its gradient
    return meter.report().peak_bytes - gradient.nbytes - factor.nbytes - at_work_bytes


def plan_of(lengths: Sequence[int]) -> Plan:
    """The plan of a chain cut into parts: all run again but the last, which keeps everything."""
    *again, kept = lengths
    starts = [sum(lengths[:k]) for k in range(len(lengths))]
    parts = [tuple(range(s, s + n)) for s, n in zip(starts, again, strict=False)]
    return (*parts, *range(starts[-1], starts[-1] + kept))


def lengths_text(lengths: Sequence[int]) -> str:
    """[3, 2, 2, 1] as "1 x 3, 2 x 2, 1 x 1": number of parts x blocks in each."""
    return ", ".join(f"{len(list(same))} x {length}" for length, same in groupby(lengths))


def best_lengths(
    num_blocks: int, block_bytes: int, input_bytes: int, room_bytes: int, extra_inputs: int = 0
) -> list[int]:
    """Lengths with the fewest blocks run again, empty if none fit.

    Part k (from 0) lives beside the inputs of the k parts before it, so it has room for
    (room - k x input) / block blocks. `extra_inputs` counts some more: a mistake to be named.
    """
    lengths: list[int] = []
    while sum(lengths) < num_blocks:
        left_bytes = room_bytes - (len(lengths) + extra_inputs) * input_bytes
        lengths.append(left_bytes // block_bytes)
        if lengths[-1] < 1:
            return []
    surplus = sum(lengths) - num_blocks
    for k in range(len(lengths)):  # the kept part stays long: the first ones give
        given = min(surplus, lengths[k] - 1) if len(lengths) > 1 else surplus
        lengths[k], surplus = lengths[k] - given, surplus - given
    return lengths


class ParallelBlock(nn.Module):
    """A written-out RMSNorm feeds attention with one key and value, and a gated layer beside it."""

    def __init__(self, model_dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim = model_dim // num_heads
        self.norm_weight = nn.Parameter(torch.ones(model_dim))
        self.query, self.output = (nn.Linear(model_dim, model_dim, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(model_dim, head_dim, bias=False) for _ in range(2))
        self.gate, self.widen = (nn.Linear(model_dim, hidden_dim, bias=False) for _ in range(2))
        self.narrow = nn.Linear(hidden_dim, model_dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x_BTD -> x_BTD with both sub-layers added."""
        mean_square_BT1 = x_BTD.square().mean(dim=-1, keepdim=True)
        normed_BTD = x_BTD * torch.rsqrt(mean_square_BT1 + 1e-6) * self.norm_weight
        hidden_BTF = F.silu(self.gate(normed_BTD)) * self.widen(normed_BTD)
        return x_BTD + self._attend(normed_BTD) + self.narrow(hidden_BTF)

    def _attend(self, x_BTD: Tensor) -> Tensor:
        q_BHTK = self.query(x_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        k_BHTK = self.key(x_BTD).unsqueeze(1).expand_as(q_BHTK)  # a view: no head gets a copy
        v_BHTK = self.value(x_BTD).unsqueeze(1).expand_as(q_BHTK)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        return self.output(y_BHTK.transpose(1, 2).flatten(2))


@cache
def parallel_bytes(
    num_blocks: int, batch_size: int, num_tokens: int, model_dim: int, num_heads: int,
    hidden_dim: int,
) -> tuple[int, int]:  # fmt: skip
    """Most bytes kept for backward by a chain of parallel blocks: plain, and each checkpointed."""
    with undisturbed():
        blocks = nn.ModuleList(
            ParallelBlock(model_dim, num_heads, hidden_dim) for _ in range(num_blocks)
        )
        x_BTD = torch.ones(batch_size, num_tokens, model_dim, requires_grad=True)
        order = range(num_blocks)
        plain = saved_bytes(blocks, lambda: run_plan(tuple(order), blocks, x_BTD, None))
        with MemoryMeter(blocks) as meter:
            plan = tuple((k,) for k in order)
            run_plan(plan, blocks, x_BTD, checkpoint_by_function).sum().backward()
    return plain, meter.report().highest("saved activations")
