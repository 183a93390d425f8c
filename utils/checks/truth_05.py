"""What lab 05's judges compare with: what a block keeps and computes again under a policy.

How it works: `PolicyCheckpoint` is the lesson's selective checkpoint with a policy that sees more
than a name. It decides at each call of the first run and repeats the decisions in the second, so a
policy may be anything. `bill_of` runs layers forward and backward under the memory meter and
torch's FLOP counter at once.

Left out: random numbers; a dropout whose result is kept would shift those of a later one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from utils.checks.helpers import require
from utils.memory import MemoryMeter
from utils.techniques.checkpointing import Checkpoint, checkpoint_with


@dataclass(frozen=True)
class Call:
    """One operation that a layer runs: its name, the bytes of its result, the FLOPs behind it."""

    name: str
    num_bytes: int
    flops: int


Policy = Callable[[Call], bool]


@contextmanager
def torch_left_alone() -> Iterator[None]:
    """Someone's code runs inside: it must leave gradients as they were, and cannot spoil the rest.

    Raises NotYet when gradients are off afterwards; the default dtype is put back without a word.
    """
    dtype = torch.get_default_dtype()
    try:
        yield
        likely = "switch gradients off with `with torch.no_grad():`, which ends by itself"
        require(torch.is_grad_enabled(), "Gradients were left switched off", likely=likely)
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(dtype)


class PolicyCheckpoint:
    """A checkpoint that keeps the results that `policy` chooses; `decisions` lists its answers."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.decisions: list[tuple[Call, bool]] = []

    def __call__(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """function(*args, **kwargs), run again for backward with the kept results in hand."""
        kept: list[Any] = []
        first, again = _Choose(self, kept), _Repeat(kept)
        return checkpoint_with(first, again, function, *args, **kwargs)

    def decide(self, call: Call) -> bool:
        """Ask the policy, and refuse what is neither yes nor no."""
        keep = self.policy(call)
        likely = "the function ends without a return" if keep is None else "compare it with a limit"
        what = f"A policy must answer True or False, not {type(keep).__name__}"
        require(isinstance(keep, bool), what, got=keep, likely=likely)
        self.decisions.append((call, keep))
        return keep


class _Choose(TorchDispatchMode):
    """Around the first run: one entry for each operation, its result or None."""

    def __init__(self, checkpoint: PolicyCheckpoint, kept: list[Any]) -> None:
        super().__init__()
        self.checkpoint, self.kept = checkpoint, kept

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation and keep its result if it is chosen."""
        result = func(*args, **(kwargs or {}))
        if not _makes_view(func):
            keep = self.checkpoint.decide(_call(func, args, kwargs or {}, result))
            self.kept.append(tree_map_only(Tensor, Tensor.detach, result) if keep else None)
        return result


class _Repeat(TorchDispatchMode):
    """Around the run for backward: hand each kept result back once, in the same order."""

    def __init__(self, kept: list[Any]) -> None:
        super().__init__()
        self.kept, self.number = kept, 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Hand back a kept result, or compute."""
        if _makes_view(func):
            return func(*args, **(kwargs or {}))
        result, self.kept[self.number] = self.kept[self.number], None
        self.number += 1
        return func(*args, **(kwargs or {})) if result is None else result

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.kept.clear()  # what came after the early stop was kept for nothing


def _makes_view(func: Any) -> bool:
    is_other_shape = func is torch.ops.aten._unsafe_view.default  # a view that nobody else sees
    return is_other_shape or any(result.alias_info for result in func._schema.returns)


def _call(func: Any, args: tuple, kwargs: dict, result: Any) -> Call:
    count = flop_registry.get(func.overloadpacket)
    flops = count(*args, **kwargs, out_val=result) if count else 0
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    name = str(func.overloadpacket).removeprefix("aten.")
    return Call(name, sum(tensor.nbytes for tensor in tensors), flops)


def calls_of(layer: Callable[[Tensor], Tensor], x: Tensor) -> list[Call]:
    """All operations of a layer's forward run, views left out, in their order."""
    listed = PolicyCheckpoint(lambda call: False)
    listed(layer, x)
    return [call for call, _ in listed.decisions]


@dataclass(frozen=True)
class StepBill:
    """Bytes kept between forward and backward, FLOPs of both, and all gradients."""

    kept_bytes: int
    flops: int
    gradients: tuple[Tensor, ...]


def bill_of(
    layers: Sequence[nn.Module], x: Tensor, checkpoint: Checkpoint | None = None
) -> StepBill:
    """One step through the layers, each inside `checkpoint`; weights and `x` are not counted."""
    model = nn.ModuleList(layers)
    steps = [partial(checkpoint, layer) if checkpoint else layer for layer in layers]
    model.zero_grad()
    with MemoryMeter(model) as meter, FlopCounterMode(display=False) as counter:
        meter.label("temporary", x)
        meter.mark("start")
        y = x
        for step in steps:
            y = step(y)
        meter.mark("kept")
        y.square().mean().backward()
    report = meter.report()
    start, kept = (sum(report.at_mark(mark).values()) for mark in ("start", "kept"))
    gradients = tuple(parameter.grad for parameter in model.parameters())
    return StepBill(kept - start, counter.get_total_flops(), gradients)


def shares(layers: Sequence[nn.Module], x: Tensor, policy: Policy) -> tuple[float, float]:
    """What a policy keeps of the plain step's bytes, and what it runs again of its FLOPs."""
    plain, bill = bill_of(layers, x), bill_of(layers, x, PolicyCheckpoint(policy))
    return bill.kept_bytes / plain.kept_bytes, bill.flops / plain.flops - 1
