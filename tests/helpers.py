"""What several tests need: a batch, a training step, and an independent witness of memory."""

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from utils.config import GPTConfig
from utils.model import next_token_loss


def batch_for(
    config: GPTConfig, batch_size: int, num_tokens: int = 0, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Random tokens_BT and targets_BT, each in a storage of its own."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch_size, num_tokens or config.context_length)
    tokens_BT = torch.randint(config.vocab_size, shape, generator=generator)
    targets_BT = torch.randint(config.vocab_size, shape, generator=generator)
    return tokens_BT.to(device), targets_BT.to(device)


def training_step(model, optimizer, config, batch_size, num_tokens=0, device="cpu"):
    """A closure: forward, backward, optimizer, gradients dropped."""
    tokens_BT, targets_BT = batch_for(config, batch_size, num_tokens, device)

    def step() -> None:
        next_token_loss(model, tokens_BT, targets_BT).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def profiler_peak_bytes(step) -> int:
    """The most bytes that `step()` had allocated at once, as the CPU allocator reported them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    live_bytes = peak_bytes = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live_bytes += event.nbytes()
        peak_bytes = max(peak_bytes, live_bytes)
    return peak_bytes
