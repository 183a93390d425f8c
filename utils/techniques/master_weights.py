"""Small updates to low-precision weights: fp32 masters keep them, stochastic rounding on average.

How it works: around 1, bf16 numbers lie 2**-7 apart, so 1 + 0.001 rounds back to 1 and the update
is lost, step after step. `MasterWeights` keeps an fp32 copy of each weight: the optimizer updates
the copy, and the model gets it rounded. `RoundedWeights` has no second copy: it rounds the updated
weights to the format's grid, to the nearest value, or up or down by chance so that the mean is
right. The order in a training loop, with a loss scaler if there is one:

    scaler.scale(loss).backward()
    masters.collect_gradients()
    scaler.step(optimizer)  # AdamW(masters.parameters()); unscales the fp32 gradients
    scaler.update()
    masters.copy_to_model()

Left out: buffers, which stay as they are, and low-precision optimizer states. `RoundedWeights` is
an emulation: its weights are values of the format, stored in fp32, so it saves no memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.config import GPTConfig
from utils.corpus import Corpus
from utils.model import build_gpt, next_token_loss
from utils.techniques.formats import BF16, NumberFormat, round_to, stochastic_round_to

LOW_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ROUNDINGS = ("nearest", "stochastic")


class MasterWeights:
    """Cast a model to `low_dtype` in place and keep its trainable weights in fp32 beside it.

    With `torch.float32`, `RoundedWeights` can emulate another format on the model's copies.
    """

    def __init__(self, model: nn.Module, low_dtype: torch.dtype = torch.bfloat16) -> None:
        if low_dtype not in LOW_DTYPES:
            raise ValueError(f"low_dtype must be one of {LOW_DTYPES}, not {low_dtype}.")
        self.model = model
        self.masters: dict[str, nn.Parameter] = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                self.masters[name] = nn.Parameter(weight.detach().to(torch.float32, copy=True))
            weight.grad = None
            if weight.is_floating_point():
                weight.data = weight.data.to(low_dtype)

    def parameters(self) -> list[nn.Parameter]:
        """The fp32 masters: what the optimizer must be given instead of the model's weights."""
        return list(self.masters.values())

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return [(self.model.get_parameter(name), each) for name, each in self.masters.items()]

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Move the model's gradients to the masters in fp32, where those of several calls add up.

        Each low-precision gradient is freed at once: the two kinds never exist side by side.
        """
        for weight, master in self._pairs():
            if weight.grad is not None:
                gradient, weight.grad = weight.grad.float(), None
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the masters, rounded to its format (to nearest, ties to even)."""
        for weight, master in self._pairs():
            weight.copy_(master)

    def num_bytes(self, optimizer: torch.optim.Optimizer) -> dict[str, int]:
        """Bytes held now, counted from the tensors; AdamW also keeps 4 per tensor for its step."""
        weights, masters = list(self.model.parameters()), self.parameters()
        states = [value for state in optimizer.state.values() for value in state.values()]
        return {
            "weights": _bytes_of(weights),
            "gradients": _bytes_of([p.grad for p in (*weights, *masters) if p.grad is not None]),
            "fp32 masters": _bytes_of(masters),
            "optimizer state": _bytes_of([value for value in states if isinstance(value, Tensor)]),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The masters by name; the low-precision weights follow from them, but not the reverse."""
        return {name: master.detach() for name, master in self.masters.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the masters in place, where the optimizer finds them, and the model from them."""
        shapes = {name: master.shape for name, master in self.masters.items()}
        if {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise ValueError("These masters are of another model: names or shapes do not match.")
        for name, master in self.masters.items():
            master.copy_(state[name])
        self.copy_to_model()


class RoundedWeights:
    """No masters: after every update the weights fall back onto the grid of a format."""

    def __init__(
        self, model: nn.Module, format: NumberFormat = BF16, rounding: str = "nearest",
        seed: int = 0,
    ) -> None:
        if rounding not in ROUNDINGS:
            raise ValueError(f"rounding must be one of {ROUNDINGS}, not {rounding!r}.")
        self.weights = list(model.parameters())
        if any(weight.dtype != torch.float32 for weight in self.weights):
            raise ValueError("RoundedWeights emulates a format in fp32: give it an fp32 model.")
        self.format, self.rounding = format, rounding
        self.generator = torch.Generator(self.weights[0].device).manual_seed(seed)
        for weight in self.weights:
            weight.data.copy_(round_to(weight.data, format))

    @torch.no_grad()
    def round_(self) -> None:
        """Round every weight in place; to be called after the optimizer's step."""
        for weight in self.weights:
            if self.rounding == "stochastic":
                weight.copy_(stochastic_round_to(weight, self.format, self.generator))
            else:
                weight.copy_(round_to(weight, self.format))


@dataclass(frozen=True)
class UpdateRun:
    """One number per step: the share of updates that vanished, and the loss in nats per byte."""

    vanished: tuple[float, ...]
    losses: tuple[float, ...]


def vanishing_updates(
    config: GPTConfig,
    corpus: Corpus,
    num_steps: int = 40,
    learning_rate: float = 1e-5,  # as late in a run: the smaller, the more updates vanish
    format: NumberFormat = BF16,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, UpdateRun]:
    """Train the small GPT three times on the same text, with weights in `format`, and compare.

    The runs are "masters", "nearest" and "stochastic". All arithmetic is fp32 and only the weights
    are rounded, for that is what decides here. An update has vanished when its gradient was not
    zero but the number that the optimizer updates is the same after the step and its rounding.
    """
    shape = (batch_size, config.context_length)
    batches = [corpus.batch(number, *shape, seed=seed) for number in range(num_steps)]
    return {
        kind: _train_rounded(kind, build_gpt(config, seed), batches, learning_rate, format, seed)
        for kind in ("masters", *ROUNDINGS)
    }


def _train_rounded(
    kind: str,
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    learning_rate: float,
    format: NumberFormat,
    seed: int,
) -> UpdateRun:
    """Train with AdamW; whenever the model runs, its weights are values of `format`."""
    masters = MasterWeights(model, torch.float32) if kind == "masters" else None
    rounded = RoundedWeights(model, format, "nearest" if masters else kind, seed)
    updated = masters.parameters() if masters else rounded.weights
    optimizer, vanished, losses = torch.optim.AdamW(updated, learning_rate), [], []
    for batch in batches:
        loss = next_token_loss(model, *batch)
        loss.backward()
        if masters:
            masters.collect_gradients()
        before = [parameter.detach().clone() for parameter in updated]
        optimizer.step()
        if masters:
            masters.copy_to_model()
        rounded.round_()
        losses.append(loss.item())
        vanished.append(share_vanished(before, updated))
        optimizer.zero_grad()
    return UpdateRun(tuple(vanished), tuple(losses))


def share_vanished(before: list[Tensor], after: list[nn.Parameter]) -> float:
    """Of the numbers with a nonzero gradient, the share that is the same before and after."""
    num_pushed = num_same = 0
    for old, new in zip(before, after, strict=True):
        pushed = new.grad != 0
        num_pushed += int(pushed.sum())
        num_same += int((pushed & (old == new)).sum())
    return num_same / num_pushed if num_pushed else 0.0


def _bytes_of(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
