"""Train the small GPT for a number of seconds or steps, and let it write.

How it works: a plain fp32 loop (forward, backward, clip, AdamW) over numbered batches. A budget in
seconds makes every laptop wait equally long; how far it gets is a measurement. A budget in steps
makes every machine compute the same thing. Left out: precision, checkpointing and ranks, which the
lessons add one at a time.
"""

if __name__ == "__main__":  # before torch is imported, so that Ctrl-C meets somebody
    from utils.trainer.command import run_and_exit  # it imports this module under its own name

    run_and_exit()

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.corpus import Corpus
from utils.model import next_token_loss


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults suit the laptop preset on one core."""

    batch_size: int = 8
    context_length: int = 128
    learning_rate: float = 2e-3  # high, for a small model and a short run
    warmup_steps: int = 10
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    final_rate_share: float = 0.1  # the learning rate falls to this share by the end
    seed: int = 0

    def rate_at(self, number: int, fraction_done: float) -> float:
        """Learning rate of step `number`: a short warm-up, then a straight line down."""
        falling = 1.0 - (1.0 - self.final_rate_share) * fraction_done
        return self.learning_rate * min(1.0, (number + 1) / self.warmup_steps) * falling


@dataclass(frozen=True)
class TrainingRun:
    """What a run did: one loss a step, in nats per byte, and the time spent training."""

    losses: tuple[float, ...]
    seconds: float
    tokens_per_step: int

    @property
    def num_tokens(self) -> int:
        """Tokens seen, repeats included."""
        return len(self.losses) * self.tokens_per_step

    @property
    def tokens_per_s(self) -> float:
        """Throughput, drawing time not counted."""
        return self.num_tokens / self.seconds


Report = Callable[[int, float, float], None]


def train(
    model: nn.Module,
    corpus: Corpus,
    config: TrainingConfig,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    report: Report | None = None,
) -> TrainingRun:
    """Train until the budget is spent; `report(step, fraction_done, loss)` is not on the clock."""
    if (seconds is None) == (steps is None):
        raise ValueError("Give train either seconds or steps, not both and not neither.")
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    losses: list[float] = []
    spent_s, fraction = 0.0, 0.0
    while fraction < 1.0:
        start_s = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = config.rate_at(len(losses), fraction)
        losses.append(train_step(model, optimizer, corpus, config, len(losses)))
        spent_s += time.perf_counter() - start_s
        fraction = spent_s / seconds if seconds is not None else len(losses) / steps
        if report is not None:
            report(len(losses), min(fraction, 1.0), losses[-1])
    return TrainingRun(tuple(losses), spent_s, config.batch_size * config.context_length)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    corpus: Corpus,
    config: TrainingConfig,
    number: int,
) -> float:
    """One step on batch `number`; returns the loss before the update, in nats per byte."""
    tokens_BT, targets_BT = corpus.batch(
        number, config.batch_size, config.context_length, seed=config.seed
    )
    loss = next_token_loss(model, tokens_BT, targets_BT)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@torch.no_grad()
def validation_loss(
    model: nn.Module, corpus: Corpus, config: TrainingConfig, num_batches: int = 8
) -> float:
    """Mean loss in nats per byte on text that training never sees."""
    model.eval()
    shape = (config.batch_size, config.context_length)
    batches = [corpus.batch(number, *shape, "validation") for number in range(num_batches)]
    losses = [next_token_loss(model, *batch) for batch in batches]
    model.train()
    return float(torch.stack(losses).mean())


@torch.no_grad()
def sample_text(
    model: nn.Module, prompt: str, num_bytes: int, temperature: float = 0.8, seed: int = 0
) -> str:
    """Let the model continue `prompt` byte by byte; bytes that are no text show as U+FFFD."""
    context = model.config.context_length
    tokens_BT = torch.tensor([list(prompt.encode())], dtype=torch.long)
    if tokens_BT.numel() == 0:
        raise ValueError("The prompt is empty: give sample_text at least one character.")
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    for _ in range(num_bytes):
        logits_BV: Tensor = model(tokens_BT[:, -context:])[:, -1] / temperature
        next_B1 = torch.multinomial(logits_BV.softmax(dim=-1), 1, generator=generator)
        tokens_BT = torch.cat([tokens_BT, next_B1], dim=1)
    model.train()
    return bytes(tokens_BT[0].tolist()).decode("utf-8", errors="replace")
