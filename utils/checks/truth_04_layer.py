"""The layer that lab 04's checkpoint has to carry: it notes each run and refuses a wrong one.

How it works: `RealLayer` has what real layers have and toy checkpoints forget: an input that needs
no gradient, keyword arguments (a tensor among them), several results, dropout, a frozen weight and
an unused one. `Trial` sends it through a function, backward, and keeps all gradients.

Shape suffixes: T tokens, D width, F hidden width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.checks.helpers import NotYet, one_line, require
from utils.checks.truth_04 import undisturbed
from utils.memory import MemoryMeter

MAX_RUNS = 9
WIDTH, HIDDEN, NUM_TOKENS = 64, 256, 128  # where bytes are counted
INPUT_BYTES = 4 * WIDTH * NUM_TOKENS
Call = Callable[..., Any]  # call(module, *args, **kwargs)


@dataclass(frozen=True)
class LayerRun:
    """What one run of the layer found."""

    scale: float
    memory_shape: tuple[int, ...] | None
    random_state: bytes


class RealLayer(nn.Module):
    """A gated sum of a feed-forward layer and a memory."""

    def __init__(self, width: int = 8, hidden: int = 32, notes: bool = True) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.unused = nn.Parameter(torch.zeros(width))
        self.narrow.bias.requires_grad_(False)
        self.notes, self.runs, self.in_backward = notes, [], False

    def forward(
        self, x_TD: Tensor, keep_T: Tensor, *, memory_TD: Tensor | None = None, scale: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x_TD, keep_T (booleans) -> y_TD, the mean size of what is inside, the largest value."""
        self._note(memory_TD, scale)
        hidden_TF = F.gelu(self.widen(x_TD)) * scale
        y_TD = self.narrow(F.dropout(hidden_TF, 0.25)).masked_fill(~keep_T[:, None], 0.0)
        if memory_TD is not None:
            y_TD = y_TD + memory_TD.tanh()
        return y_TD, hidden_TF.square().mean(), y_TD.argmax(dim=-1)

    def _note(self, memory_TD: Tensor | None, scale: float) -> None:
        state = torch.get_rng_state().numpy().tobytes() if self.notes else b""
        shape = None if memory_TD is None else tuple(memory_TD.shape)
        run = LayerRun(scale, shape, state)
        self.runs.append(run)
        require(len(self.runs) <= MAX_RUNS, f"The layer ran more than {MAX_RUNS} times")
        if not self.in_backward:
            return
        likely = "the second run is the one that needs a graph: `with torch.enable_grad():`"
        what = "The second run was made under torch.no_grad(), so it has no graph"
        require(torch.is_grad_enabled(), what, likely=likely)
        first = self.runs[0]
        for name in ("scale", "memory_shape"):
            likely = "keep the keyword arguments, too, and hand them on in both runs"
            same = getattr(run, name) == getattr(first, name)
            require(same, "The second run lost a keyword argument", likely=likely)
        likely = "note the random state before the first run and replay it around the second"
        same = run.random_state == first.random_state
        require(same, "Dropout drew other numbers in the second run", likely=likely)


@dataclass
class Trial:
    """One forward and backward of a RealLayer; `start` is a leaf, `x_TD` what the layer gets."""

    call: Call
    is_leaf: bool  # whether x_TD is start itself; else an earlier layer made it and uses it again
    layer: RealLayer = field(init=False)

    def __post_init__(self) -> None:
        torch.random.default_generator.manual_seed(21)
        self.layer = RealLayer()
        self.start, self.memory_TD = (torch.randn(6, 8, requires_grad=True) for _ in range(2))
        self.keep_T = torch.tensor([True, True, False, True, True, False])

    def forward(self) -> tuple[Tensor, ...]:
        """The layer's results, through the call."""
        self.x_TD = self.start if self.is_leaf else self.start.exp()
        results = self.call(
            self.layer, self.x_TD, self.keep_T, memory_TD=self.memory_TD, scale=0.5
        )
        self.layer.in_backward = True
        self.next_draw = torch.rand(1).item()
        return results

    def loss(self, results: tuple[Tensor, ...]) -> Tensor:
        """A loss with another gradient for each result."""
        y_TD, size, _ = results
        again = 0.0 if self.is_leaf else (self.x_TD * self.start).sum()
        return (y_TD.square() * 0.7).sum() + 3.0 * size + again

    def leaves(self) -> dict[str, Tensor]:
        """All that may get a gradient, by name."""
        inputs = {"x": self.start, "memory_TD": self.memory_TD}
        return inputs | dict(self.layer.named_parameters())

    def gradients(self) -> dict[str, Tensor | None]:
        """What has arrived."""
        return {name: leaf.grad for name, leaf in self.leaves().items()}


def plainly(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The call without a checkpoint."""
    return module(*args, **kwargs)


def true_trial(is_leaf: bool) -> tuple[Trial, tuple[Tensor, ...]]:
    """The same without a checkpoint, after backward."""
    with undisturbed():
        trial = Trial(plainly, is_leaf)
        results = trial.forward()
        trial.layer.in_backward = False
        trial.loss(results).backward()
    return trial, results


def draw_after(truth: Trial) -> float:
    """What the random stream gives once a plain trial's forward and its own draw are over."""
    with undisturbed():
        Trial(truth.call, truth.is_leaf).forward()
        return torch.rand(1).item()


def backward(loss: Tensor) -> None:
    """loss.backward(), with a sentence for what torch says when a graph was not cut."""
    try:
        loss.backward()
    except NotYet:
        raise
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        likely = (
            "no detach: the second run goes on into the graph of the layers before; give it "
            "inputs of its own, tensor.detach().requires_grad_()"
        )
        raise NotYet("The backward of the layers before ran twice", likely=likely) from None


def asked_gradients(
    loss: Tensor, leaves: dict[str, Tensor], likely: str
) -> dict[str, Tensor | None]:
    """torch.autograd.grad for all leaves that want a gradient, with a sentence if it fails."""
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    try:
        found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    except (NotImplementedError, NotYet):  # a stub, or the layer's own sentence
        raise
    except RuntimeError as error:
        what = f"torch.autograd.grad fails: {one_line(str(error), 120)}"
        raise NotYet(what, likely=likely) from None
    return dict(zip(wanted, found, strict=True))


@cache
def plain_bytes() -> int:
    """What the layer keeps without a checkpoint."""
    with undisturbed():
        return held_bytes(plainly)[0]


def held_bytes(call: Call) -> tuple[int, int]:
    """Bytes between forward and backward beside inputs and results, and bytes left after it."""
    layer = RealLayer(WIDTH, HIDDEN, notes=False)
    x, memory = (torch.ones(NUM_TOKENS, WIDTH, requires_grad=True) for _ in range(2))
    keep = torch.ones(NUM_TOKENS, dtype=torch.bool)
    tensors = [x, memory, keep, *layer.parameters()]
    for tensor in tensors:
        tensor.grad = torch.zeros_like(tensor) if tensor.requires_grad else None
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    with MemoryMeter() as meter:
        meter.label("parameters", *tensors, *gradients)
        start = meter.report().end_bytes
        results = call(layer, x, keep, memory_TD=memory, scale=0.5)
        kept = meter.report().end_bytes - start - sum(result.nbytes for result in results)
        backward(results[0].sum() + results[1])
        del results
        left = meter.report().end_bytes - start
    return kept, left
