"""What the tests of checkpointing share: variants, torch's own, and one step of a GPT."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from tests.helpers import batch_for
from utils.config import GPTConfig
from utils.model import GPT, build_gpt, next_token_loss
from utils.techniques.checkpointing import Checkpoint, checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.segments import Plan, checkpointed, run_plan

CONFIG = GPTConfig(4, 2, 32, 32, 64, dropout=0.1)
OURS = {"function": checkpoint_by_function, "hooks": checkpoint_by_hooks}
TORCHS = {
    "torch, reentrant": partial(torch_checkpoint, use_reentrant=True),
    "torch, hooks": partial(torch_checkpoint, use_reentrant=False),
}
EACH_BLOCK: Plan = ((0,), (1,), (2,), (3,))
PAIRS: Plan = ((0, 1), (2, 3))


def leaf(*values: float) -> torch.Tensor:
    """A vector that asks for its gradient."""
    return torch.tensor(values).float().requires_grad_()


def in_plan(model: nn.Module, plan: Plan | None, checkpoint: Checkpoint):
    """`model` by `plan`, or as it is without one."""
    return nullcontext() if plan is None else checkpointed(model, plan, checkpoint)


def step(
    config: GPTConfig,
    plan: Plan | None = None,
    checkpoint: Checkpoint = checkpoint_by_hooks,
    context: Callable = nullcontext,
    prepare: Callable[[GPT], object] = lambda model: None,
    inside: bool = False,
) -> list[torch.Tensor | None]:
    """The loss and every gradient of one step, backward inside or outside of `context`."""
    model = build_gpt(config)
    prepare(model)
    batch = batch_for(config, 3)
    torch.manual_seed(7)
    with in_plan(model, plan, checkpoint):
        with context():
            loss = next_token_loss(model, *batch)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
    drawn_next = torch.rand(3)  # the random stream outside must not feel the second runs
    return [loss.detach(), drawn_next, *(parameter.grad for parameter in model.parameters())]


def assert_same(first: list, second: list) -> None:
    """Bit for bit, and None where the other has None."""
    for one, other in zip(first, second, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and torch.equal(one, other))


def nested(outer: Checkpoint, inner: Checkpoint) -> Checkpoint:
    """For plans of pairs: `outer` around both layers, and `inner` around the second of them."""

    def checkpoint(function: partial, x: torch.Tensor) -> torch.Tensor:
        (first, second), layers = function.args
        return outer(partial(run_plan, (first, (second,)), layers, checkpoint=inner), x)

    return checkpoint
