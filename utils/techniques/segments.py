"""Checkpointing over a chain of layers: a plan says which parts run again, and how.

How it works: a plan is a nested tuple over the chain's layers. A number is a layer that keeps what
it saves; a tuple is a part that keeps only its input and runs again for backward, by the plan that
stands in it. `((0, 1), (2, 3))` is two segments of two layers; `(((0, 1), 2), 3)` runs layers 0 and
1 three times. A layer inside d brackets runs 1 + d times, whatever the brackets; only where one
bracket ends in another does `checkpoint_by_hooks` save runs, since it stops early.

Left out: finding a good plan (schedules.py and budget.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from utils.techniques.checkpointing import Checkpoint, checkpoint_by_hooks

Plan = tuple["int | Plan", ...]
Layer = Callable[[Any], Any]


def run_plan(plan: Plan, layers: Sequence[Layer], x: Any, checkpoint: Checkpoint) -> Any:
    """Send x through the plan's layers, in order."""
    for step in plan:
        if isinstance(step, int):
            x = layers[step](x)
        else:
            x = checkpoint(partial(run_plan, step, layers, checkpoint=checkpoint), x)
    return x


def layers_of(plan: Plan) -> list[int]:
    """The layers of a plan in the order in which they run first."""
    return [layer for step in plan for layer in ([step] if _is_layer(step) else layers_of(step))]


def runs_of(plan: Plan, depth: int = 0) -> dict[int, int]:
    """How often each layer's forward runs: once, and once more for each bracket around it."""
    runs: dict[int, int] = {}
    for step in plan:
        runs |= {step: depth + 1} if _is_layer(step) else runs_of(step, depth + 1)
    return runs


def segments(lengths: Sequence[int]) -> Plan:
    """A plan of neighbouring segments with these numbers of layers, each run again as a whole."""
    if not lengths or min(lengths) < 1:
        raise ValueError(f"Every segment needs at least one layer, but the lengths are {lengths}.")
    starts = [sum(lengths[:k]) for k in range(len(lengths))]
    return tuple(
        tuple(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)
    )


def even_lengths(num_layers: int, num_segments: int) -> list[int]:
    """`num_segments` lengths that differ by at most one; the longer ones come last.

    The last segments run again while few gradients exist yet, so there is most room for them.
    """
    if not 1 <= num_segments <= num_layers:
        raise ValueError(
            f"{num_layers} layers make 1 to {num_layers} segments, not {num_segments}."
        )
    shorter, num_longer = divmod(num_layers, num_segments)
    return [shorter] * (num_segments - num_longer) + [shorter + 1] * num_longer


def every(num_layers: int, step: int) -> Plan:
    """Each `step`-th layer alone runs again, the others keep what they save."""
    if step < 1:
        raise ValueError(f"Every {step} layers makes no plan: 1 is each layer, 2 every other one.")
    return tuple((layer,) if layer % step == 0 else layer for layer in range(num_layers))


@contextmanager
def checkpointed(
    model: nn.Module, plan: Plan, checkpoint: Checkpoint = checkpoint_by_hooks
) -> Iterator[None]:
    """Inside the block `model.blocks` runs by the plan; names of parameters stay as they are."""
    blocks = model.blocks
    if layers_of(plan) != list(range(len(blocks))):
        raise ValueError(
            f"The plan runs the layers {layers_of(plan)}, but the model has {len(blocks)} blocks: "
            "name each one once, from 0 on."
        )
    layers = [blocks[k] for k in range(len(blocks))]  # not list(blocks): it may be a _RunBy itself
    model.blocks = _RunBy(layers, partial(run_plan, plan, layers, checkpoint=checkpoint))
    try:
        yield
    finally:
        model.blocks = blocks


class _RunBy(nn.ModuleList):
    """The same blocks under the same names; whoever loops over them meets one callable."""

    def __init__(self, blocks: Sequence[nn.Module], run: Callable[[Tensor], Tensor]) -> None:
        super().__init__(blocks)
        self.run = run

    def __iter__(self) -> Iterator[Callable[[Tensor], Tensor]]:
        return iter([self.run])


def _is_layer(step: "int | Plan") -> bool:
    return isinstance(step, int)
