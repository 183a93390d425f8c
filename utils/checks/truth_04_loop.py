"""The chain of lab 04's colleague: a GPT whose blocks note when they run and what they draw.

How it works: `traced` runs a function `loss(layers, tokens_BT, length)` on a small GPT with dropout
and keeps its loss, its gradients, the order in which blocks ran, the random state that each of
those runs found, and the bytes between forward and backward.

Shape suffixes: B batch, T tokens, D model width.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from utils.checks.helpers import require
from utils.checks.truth_04 import undisturbed
from utils.config import GPTConfig
from utils.memory import MemoryMeter
from utils.model import GPT, build_gpt
from utils.techniques.chain import gpt_chain
from utils.techniques.checkpointing import checkpoint_by_hooks
from utils.techniques.segments import Plan, run_plan

Layer = Callable[[Tensor], Tensor]
SegmentedLoss = Callable[[Sequence[Layer], Tensor, int], Tensor]
CONFIG = GPTConfig(4, 2, 16, 8, 32, dropout=0.2)
INPUT_BYTES = 4 * 2 * 8 * 16  # what enters a block: 2 sequences of 8 tokens
MAX_RUNS = 8


@dataclass(frozen=True)
class Case:
    """A chain of blocks in segments; are the embeddings frozen, and are bytes counted?"""

    num_blocks: int
    length: int
    is_frozen: bool = False
    in_bytes: bool = False  # under the meter, which takes its time

    @property
    def segments(self) -> list[range]:
        """The blocks of each segment."""
        starts = range(0, self.num_blocks, self.length)
        return [range(s, min(s + self.length, self.num_blocks)) for s in starts]

    @property
    def expected_order(self) -> list[int]:
        """Blocks in the order in which they run: all, then the segments again from behind."""
        *again, _ = self.segments
        return [*range(self.num_blocks), *(k for part in reversed(again) for k in part)]

    @property
    def plan(self) -> Plan:
        """The same as a plan of the whole chain, embedding and loss included."""
        *again, kept = ([k + 1 for k in part] for part in self.segments)
        return (0, *map(tuple, again), *kept, self.num_blocks + 1)


@dataclass(frozen=True)
class Trace:
    """What a run did; `order` lists block numbers, `states` the random state of each run."""

    loss: float
    gradients: dict[str, Tensor | None]
    order: list[int]
    num_forward: int  # how many of `order` ran before backward
    states: list[bytes]
    kept_bytes: int


class _Noting:
    """A block that notes each of its runs."""

    def __init__(self, block: Layer, number: int, trace: Trace) -> None:
        self.block, self.number, self.trace = block, number, trace

    def __call__(self, x_BTD: Tensor) -> Tensor:
        self.trace.order.append(self.number)
        self.trace.states.append(torch.get_rng_state().numpy().tobytes())
        num_runs = self.trace.order.count(self.number)
        require(num_runs <= MAX_RUNS, f"Block {self.number} ran more than {MAX_RUNS} times")
        return self.block(x_BTD)


def traced(loss_of: SegmentedLoss, case: Case) -> Trace:
    """Run someone's loss forward and backward. Whatever it raises passes through."""
    torch.random.default_generator.manual_seed(8)
    model, tokens_BT, targets_BT = _model(case)
    embed, *blocks, loss = gpt_chain(model, targets_BT)
    trace = Trace(0.0, {}, [], 0, [], 0)
    noting = [_Noting(block, number, trace) for number, block in enumerate(blocks)]
    meter = MemoryMeter(model) if case.in_bytes else None
    with warnings.catch_warnings(), meter or nullcontext():
        warnings.simplefilter("ignore")  # torch's own about inputs without gradient
        if meter:
            meter.label("parameters", tokens_BT, targets_BT)
        before_bytes = meter.report().end_bytes if meter else 0
        result = loss_of([embed, *noting, loss], tokens_BT, case.length)
        kept_bytes = meter.report().end_bytes - before_bytes if meter else 0
        has_graph = isinstance(result, Tensor) and result.requires_grad
        require(has_graph, "The loss has no graph to go backward through", got=result)
        num_forward, value = len(trace.order), result.item()
        result.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    return replace(trace, loss=value, gradients=gradients, num_forward=num_forward,
                   kept_bytes=kept_bytes)


def _model(case: Case) -> tuple[GPT, Tensor, Tensor]:
    config = replace(CONFIG, num_layers=case.num_blocks)
    model = build_gpt(config, seed=4)
    for embedding in (model.token_embedding, model.position_embedding):
        embedding.weight.requires_grad_(not case.is_frozen)
    text = torch.arange(2 * (config.context_length + 1)).reshape(2, -1) % config.vocab_size
    return model, text[:, :-1].contiguous(), text[:, 1:].contiguous()


def plain_loss(layers: Sequence[Layer], tokens_BT: Tensor, length: int) -> Tensor:
    """No segment runs again."""
    return run_plan(tuple(range(len(layers))), layers, tokens_BT, checkpoint_by_hooks)


@cache
def true_trace(case: Case) -> Trace:
    """The plain run, with the order and the bytes of a run in segments."""
    def segmented(layers: Sequence[Layer], tokens_BT: Tensor, length: int) -> Tensor:
        return run_plan(case.plan, layers, tokens_BT, checkpoint_by_hooks)

    with undisturbed():
        cut = traced(segmented, case)
        return replace(traced(plain_loss, case), order=cut.order, kept_bytes=cut.kept_bytes)


def wrong_blocks(trace: Trace, case: Case) -> dict[int, str]:
    """For each block, whether its gradients are "right", "missing" or "wrong"."""
    truth, found = true_trace(case), {}
    for number in range(case.num_blocks):
        names = [name for name in trace.gradients if name.startswith(f"blocks.{number}.")]
        pairs = [(trace.gradients[name], truth.gradients[name]) for name in names]
        if all(got is not None and torch.equal(got, right) for got, right in pairs):
            found[number] = "right"
        else:
            is_missing = all(got is None or not got.any() for got, _ in pairs)
            found[number] = "missing" if is_missing else "wrong"
    return found


def report_rows(loss_of: SegmentedLoss) -> list[tuple[str, int, int, str, str]]:
    """(block, runs in forward, in backward, gradients, and with frozen embeddings), four blocks."""
    cases = Case(4, 2), Case(4, 2, is_frozen=True)
    with undisturbed():
        traces = [traced(loss_of, case) for case in cases]
    free, frozen = (wrong_blocks(trace, case) for trace, case in zip(traces, cases, strict=True))
    order, num_forward = traces[0].order, traces[0].num_forward
    first, second = order[:num_forward], order[num_forward:]
    return [(f"block {k}", first.count(k), second.count(k), free[k], frozen[k]) for k in range(4)]
