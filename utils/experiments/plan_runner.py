"""Run a GPT by any plan of checkpointing, on any batch and device, and plan for a peak.

How it works: the model is a chain of embedding, two halves for each block, and loss. A step is one
forward and one backward pass over it; weights and gradients are there before. On a GPU each layer
computes under a bf16 autocast of its own. `best_plan` takes the costs of one block for all, asks
the dynamic programme, runs the plan and asks again with less if the peak was over: kernels take
scratch memory that no formula knows.

Left out: the optimizer.
"""

from collections.abc import Callable
from functools import cache, cached_property, partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from utils.config import GPTConfig
from utils.experiments.fitting import DoesNotFit, give_back, peak_bytes, survive
from utils.model import GPT, build_gpt
from utils.techniques.budget import cheapest_plan, least_budget_bytes, plan_peak_bytes
from utils.techniques.chain import Layer, LayerCost, gpt_chain, halves, measure_layers
from utils.techniques.checkpointing import Checkpoint, checkpoint_by_hooks
from utils.techniques.segments import Plan, run_plan

Step = Callable[[], None]
NUM_TRIES = 4


def halved_chain(model: GPT, targets_BT: Tensor) -> list[Layer]:
    """Embedding, two halves for each block, loss."""
    embed, *blocks, loss = gpt_chain(model, targets_BT)
    return [embed, *(half for block in blocks for half in halves(block)), loss]


class PlanRunner:
    """One model on one device."""

    def __init__(self, config: GPTConfig, device: str) -> None:
        self.config, self.device = config, device
        self.model = build_gpt(config).to(device)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        held = (*self.model.parameters(), *self.model.buffers())
        self.held_bytes = sum(tensor.nbytes * (1 + tensor.requires_grad) for tensor in held)
        self.best_plan = cache(self._best_plan)

    def step(self, plan: Plan, checkpoint: Checkpoint, batch_size: int) -> Step:
        """A function that runs forward and backward once."""
        layers, tokens_BT = self._chain(batch_size)

        def step() -> None:
            run_plan(plan, layers, tokens_BT, checkpoint).backward()

        return step

    def peak_bytes(self, step: Step) -> int | None:
        """Peak of a step, weights and gradients included, or None if memory ran out."""
        give_back()
        return survive(partial(peak_bytes, step, self.model, self.device))

    def flops(self, step: Step) -> int:
        """FLOPs of a step by torch's counter."""
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    def _best_plan(self, batch_size: int, target_bytes: int) -> Plan:
        """The cheapest plan whose peak is at most `target_bytes`; DoesNotFit if there is none."""
        costs = self._costs(batch_size)
        batch_bytes = 16 * batch_size * self.config.context_length  # tokens and targets
        budget_bytes = target_bytes - self.held_bytes - batch_bytes
        for _ in range(NUM_TRIES):
            plan = self._cheapest(costs, budget_bytes)
            peak = self.peak_bytes(self.step(plan, checkpoint_by_hooks, batch_size))
            if peak is not None and peak <= target_bytes:
                return plan
            budget_bytes -= max(peak - target_bytes if peak else 0, budget_bytes // 50)
        raise DoesNotFit

    def _cheapest(self, costs: list[LayerCost], budget_bytes: int) -> Plan:
        # Without a look first, `cheapest_plan` would search long for the least budget that works.
        if budget_bytes < self._least_share * _plain_peak_bytes(costs):
            raise DoesNotFit
        try:
            return cheapest_plan(costs, budget_bytes)
        except ValueError:
            raise DoesNotFit from None

    @cached_property
    def _least_share(self) -> float:
        """The least budget that works, as a share of the plain peak."""
        costs = self._costs(1)
        return least_budget_bytes(costs) / _plain_peak_bytes(costs)

    def _costs(self, batch_size: int) -> list[LayerCost]:
        """Costs of the whole chain: blocks are alike, so one stands for all."""
        layers, tokens_BT = self._chain(batch_size)
        embed, attend, feed_forward, loss = measure_layers([*layers[:3], layers[-1]], tokens_BT)
        return [embed, *[attend, feed_forward] * self.config.num_layers, loss]

    def _chain(self, batch_size: int) -> tuple[list[Layer], Tensor]:
        shape = (batch_size, self.config.context_length)
        tokens_BT = torch.zeros(shape, dtype=torch.long, device=self.device)
        layers = halved_chain(self.model, tokens_BT.clone())
        return [_in_bf16(layer, self.device) for layer in layers], tokens_BT


def _in_bf16(layer: Layer, device: str) -> Layer:
    """The layer under autocast on a GPU. No cache: a cast weight must go with its layer."""
    if device == "cpu":
        return layer

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return layer(x)

    return run


def _plain_peak_bytes(costs: list[LayerCost]) -> int:
    return plan_peak_bytes(tuple(range(len(costs))), costs)
