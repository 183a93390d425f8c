"""Steps of a GPT by plan and checkpoint, ours and torch's, and what meter and counter say of them.

How it works: `CHECKPOINTS` names four ways to checkpoint that must do the same; `parity_rows` holds
bytes, FLOPs and gradients of each against the plain step. `AdamStep` is a whole training step whose
gradients stay in place, as between micro-batches.

Left out: time (utils.timing takes a step as it is) and gradients that do not exist yet.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint
from torch.utils.flop_counter import FlopCounterMode

from utils.memory import MemoryMeter, measure_memory
from utils.memory_report import MemoryReport
from utils.model import GPT, next_token_loss
from utils.step_cost import COST_HEADERS, gradients_of, step_cost
from utils.techniques.checkpointing import (
    Checkpoint,
    checkpoint_by_function,
    checkpoint_by_hooks,
)
from utils.techniques.segments import Plan, checkpointed

CHECKPOINTS: dict[str, Checkpoint] = {
    "ours, Function": checkpoint_by_function,
    "torch's, reentrant": partial(torch_checkpoint, use_reentrant=True),
    "ours, hooks": checkpoint_by_hooks,
    "torch's, not reentrant": partial(torch_checkpoint, use_reentrant=False),
}
PARITY_HEADERS = (*COST_HEADERS, "gradients equal")
Batch = Sequence[Tensor]  # tokens_BT, targets_BT
SEED = 0


def peak_and_gradients(step: Callable[[], object], model: nn.Module) -> tuple[int, Tensor]:
    """Peak bytes of a step, and all its gradients in one flat tensor.

    The step starts with gradients of zero and with random numbers from the same seed.
    """
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    torch.manual_seed(SEED)
    peak_bytes = measure_memory(step, model).peak_bytes
    return peak_bytes, torch.cat([weight.grad.flatten() for weight in model.parameters()])


def loss_by(model: GPT, batch: Batch, plan: Plan, checkpoint: Checkpoint) -> Tensor:
    """The loss of one seeded forward run whose blocks run by `plan`."""
    torch.manual_seed(SEED)
    with checkpointed(model, plan, checkpoint):
        return next_token_loss(model, *batch)


def step_by(model: GPT, batch: Batch, plan: Plan, checkpoint: Checkpoint) -> None:
    """Forward and backward by `plan`; gradients add up in `.grad`."""
    loss_by(model, batch, plan, checkpoint).backward()


def parity_rows(model: GPT, batch: Batch, plan: Plan) -> list[tuple[object, ...]]:
    """Rows under PARITY_HEADERS: the plain step, then the plan by each of CHECKPOINTS."""
    plain = partial(loss_by, model, batch, tuple(range(len(model.blocks))), checkpoint_by_hooks)
    gradients, base = gradients_of(plain, model), step_cost(plain, model, *batch)
    rows: list[tuple[object, ...]] = [(*base.row("plain", base), "")]
    for name, checkpoint in CHECKPOINTS.items():
        forward = partial(loss_by, model, batch, plan, checkpoint)
        is_equal = torch.equal(gradients_of(forward, model), gradients)
        rows.append((*step_cost(forward, model, *batch).row(name, base), is_equal))
    return rows


class AdamStep:
    """`step(plan, checkpoint)`: forward, backward and Adam, on one model and batch."""

    def __init__(self, model: GPT, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.adam = torch.optim.AdamW(model.parameters())
        self(tuple(range(len(model.blocks))))  # gradients and Adam's state exist from here on

    def __call__(
        self,
        plan: Plan,
        checkpoint: Checkpoint = checkpoint_by_hooks,
        mark: Callable[[str], object] = lambda name: None,
    ) -> None:
        """One step; `mark` hears when backward and the optimizer begin."""
        with checkpointed(self.model, plan, checkpoint):
            loss = next_token_loss(self.model, *self.batch)
        mark("backward")
        loss.backward()
        del loss
        mark("optimizer")
        self.adam.step()
        self.adam.zero_grad(set_to_none=False)

    def metered(self, plan: Plan, checkpoint: Checkpoint = checkpoint_by_hooks) -> MemoryReport:
        """A step under the meter."""
        with MemoryMeter(self.model, self.adam) as meter:
            self(plan, checkpoint, meter.mark)
        return meter.report()

    def flops(self, plan: Plan, checkpoint: Checkpoint = checkpoint_by_hooks) -> int:
        """A step under torch's counter, blind to the fused attention of a CPU."""
        with FlopCounterMode(display=False) as counter:
            self(plan, checkpoint)
        return counter.get_total_flops()
