"""A model as a chain of layers, and what each layer costs in FLOPs and bytes, measured.

How it works: `gpt_chain` cuts a GPT and its loss into functions of one tensor. `measure_layers`
sends a batch through them, each layer alone under the memory meter: once without a graph, once with
one and backward. All figures are bytes above the layer's input, exact and the same in every run.

Left out: weights, gradients and optimizer state; they are there whatever the plan is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from utils.memory import MemoryMeter
from utils.memory_report import MemoryReport
from utils.model import GPT, Block
from utils.techniques.replay import ReplayState

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LayerCost:
    """One layer: FLOPs of a forward run, and bytes above its input at each moment."""

    flops: int
    output_bytes: int
    saved_bytes: int  # kept from forward to backward, beside input and output
    plain_peak_bytes: int  # in a forward run that keeps nothing, output included
    graph_peak_bytes: int  # in a forward run that keeps what backward needs
    backward_peak_bytes: int  # with what was saved, the gradient that arrives and the one that goes


def gpt_chain(model: GPT, targets_BT: Tensor) -> list[Layer]:
    """The model as functions of one tensor: tokens_BT -> x_BTD, blocks, x_BTD -> loss."""

    def embed(tokens_BT: Tensor) -> Tensor:
        positions_TD = model.position_embedding.weight[: tokens_BT.shape[1]]
        return model.dropout(model.token_embedding(tokens_BT) + positions_TD)

    def loss(x_BTD: Tensor) -> Tensor:
        logits_BTV = model.output(model.final_norm(x_BTD))
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

    return [embed, *model.blocks, loss]


def halves(block: Block) -> tuple[Layer, Layer]:
    """A block as two layers of unequal cost: attention, then the feed-forward layer."""

    def attend(x_BTD: Tensor) -> Tensor:
        return x_BTD + block.dropout(block.attention(block.attention_norm(x_BTD)))

    def feed_forward(x_BTD: Tensor) -> Tensor:
        return x_BTD + block.dropout(block.feed_forward(block.feed_forward_norm(x_BTD)))

    return attend, feed_forward


def measure_layers(layers: Sequence[Layer], x: Tensor) -> list[LayerCost]:
    """The cost of each layer, on the input that reaches it when `x` enters the chain.

    Gradients of weights are taken as given. The weights' own gradients and the random numbers are
    afterwards what they were before.
    """
    costs = []
    with MemoryMeter() as meter:
        for layer in layers:
            costs.append(_measure(layer, x, meter))
            with ReplayState([x]).replay(), torch.no_grad():
                x = layer(x)
    return costs


def measure_layer(layer: Layer, x: Tensor) -> LayerCost:
    """The cost of one layer."""
    return measure_layers([layer], x)[0]


def _measure(layer: Layer, x: Tensor, meter: MemoryMeter) -> LayerCost:
    x = x.detach().requires_grad_(x.is_floating_point())
    with FlopCounterMode(display=False) as counter, ReplayState([x]).replay(), torch.no_grad():
        output_bytes = layer(x).nbytes
    # This runs the layer once with a graph: the meter then knows weights, gradients and x.
    with _spare_gradients(layer, x), ReplayState([x]).replay():
        with torch.no_grad():
            meter.mark("plain")
            layer(x)
        meter.mark("graph")
        _through(layer, x, meter)
        meter.mark("end")
    report = meter.report()
    start, held = (int(report.total[_position(report, m) - 1]) for m in ("plain", "backward"))
    return LayerCost(
        flops=counter.get_total_flops(),
        output_bytes=output_bytes,
        saved_bytes=held - start - output_bytes,
        plain_peak_bytes=_peak(report, "plain", "graph") - start,
        graph_peak_bytes=_peak(report, "graph", "backward") - start,
        backward_peak_bytes=_peak(report, "backward", "end") - start,
    )


@contextmanager
def _spare_gradients(layer: Layer, x: Tensor) -> Iterator[None]:
    """Inside the block the layer's weights have gradients of zero, after it those of before."""
    with ReplayState([x]).replay():
        before = [(weight, weight.grad) for weight in _weights(layer(x)) if weight is not x]
    for weight, _ in before:
        weight.grad = torch.zeros_like(weight)
    try:
        yield
    finally:
        for weight, gradient in before:
            weight.grad = gradient


def _weights(output: Tensor) -> list[Tensor]:
    """All tensors at the ends of the graph behind `output`."""
    found, seen = [output.grad_fn], set()
    while found:
        node = found.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [above for above, _ in node.next_functions]
    return [node.variable for node in seen if type(node).__name__ == "AccumulateGrad"]


def _through(layer: Layer, x: Tensor, meter: MemoryMeter) -> None:
    """Forward and backward, the second one with a gradient of ones and without the output."""
    output = layer(x)
    meter.mark("backward")
    if not output.requires_grad:  # nothing to train up to here
        return
    root = _Above.apply(output)
    del output
    torch.autograd.backward(root, torch.empty_like(root))


class _Above(torch.autograd.Function):
    """Stands for the layer above: sends a gradient that nobody else holds, as in a whole step."""

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        ctx.arriving = partial(torch.ones, output.shape, dtype=output.dtype, device=output.device)
        return output.new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Tensor:
        return ctx.arriving()


def _position(report: MemoryReport, mark: str) -> int:
    return max(position for name, position in report.marks if name == mark)


def _peak(report: MemoryReport, begin: str, end: str) -> int:
    """The highest total from one mark's last occurrence to another's."""
    return int(report.total[_position(report, begin) - 1 : _position(report, end)].max())
