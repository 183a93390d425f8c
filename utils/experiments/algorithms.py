"""A better algorithm: how many tokens, and how many seconds, three optimizers need for one loss.

How it works: "AdamW as it comes" has torch's learning rate, 0.001. "AdamW, tuned" and "Muon, tuned"
(utils/techniques/muon.py) each get the same number of trials, on a seed that is not used again, and
keep the learning rate with the lowest validation loss after `num_steps`. Then each runs on several
seeds (weights and batches both). The target is the highest loss that AdamW as it comes ended with:
all of its runs reach it, and nobody chose it by the answer. Tokens are read off the curve of
validation losses, straight lines between its points. A step's seconds come from all three in turn.

All learning rates warm up and then stay: a rate that falls, which helps all, would tie the answer
to the length of the run. Left out: that, the batch size, other architectures, larger models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import nn

from utils.config import GPTConfig
from utils.corpus import Corpus, load_corpus
from utils.experiments.registry import Rows
from utils.model import GPT, build_gpt, next_token_loss
from utils.techniques.muon import Muon, split_parameters
from utils.timing import compare

AS_IT_COMES, ADAMW, MUON = "AdamW as it comes", "AdamW, tuned", "Muon, tuned"
DEFAULT_RATE = 1e-3  # of torch.optim.AdamW
TRIED = {ADAMW: (5e-4, 2e-3, 3e-3, 4e-3, 8e-3), MUON: (0.0025, 0.005, 0.01, 0.02, 0.04)}
ADAMW_BESIDE_MUON = 4e-3  # for embeddings, output layer, norms and biases
TUNING_SEED = 1000
SMALL = GPTConfig(2, 4, 64, 64, 256)


@dataclass(frozen=True)
class Track:
    """What all contenders run on."""

    config: GPTConfig = SMALL
    batch_size: int = 16
    num_steps: int = 200
    every: int = 10  # steps between two looks at the validation loss
    warmup_steps: int = 10
    num_seeds: int = 3
    tried: dict[str, tuple[float, ...]] = field(default_factory=lambda: TRIED)

    @property
    def tokens_per_step(self) -> int:
        """The same for everyone."""
        return self.batch_size * self.config.context_length


CPU_TRACK = Track()
GPU_TRACK = Track(GPTConfig(6, 6, 384, 256, 256), batch_size=64, num_steps=300)


@dataclass(frozen=True)
class Curve:
    """Validation loss after so many steps."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]

    def steps_to(self, target: float) -> float | None:
        """The first time that the curve is at the target, or None."""
        points = list(zip(self.steps, self.losses, strict=True))
        if points and points[0][1] <= target:
            return float(points[0][0])
        for (step, loss), (next_step, next_loss) in pairwise(points):
            if next_loss <= target < loss:
                return step + (next_step - step) * (loss - target) / (loss - next_loss)
        return None


class Contender:
    """A model, its optimizers and its text; a call trains one step."""

    def __init__(
        self, name: str, rate: float, track: Track, corpus: Corpus, seed: int, device: str = "cpu"
    ) -> None:
        self.track, self.corpus, self.seed, self.device = track, corpus, seed, device
        self.model = build_gpt(track.config, seed).to(device)
        self.optimizers = optimizers_of(name, rate, self.model)
        self.rates = [each.param_groups[0]["lr"] for each in self.optimizers]
        self.num_steps = 0

    def __call__(self) -> None:
        warm = min(1.0, (self.num_steps + 1) / self.track.warmup_steps)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * warm
        self._loss("train", self.num_steps, self.seed).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.num_steps += 1

    def curve(self, until: float = -1.0) -> Curve:
        """Train to the end of the track, or until the validation loss is at `until`."""
        steps, losses = [], []
        while self.num_steps < self.track.num_steps and (not losses or losses[-1] > until):
            self()
            if self.num_steps % self.track.every == 0:
                steps.append(self.num_steps)
                losses.append(self.validation_loss())
        return Curve(tuple(steps), tuple(losses))

    def end_loss(self) -> float:
        """The validation loss at the end of the track, without a look before."""
        while self.num_steps < self.track.num_steps:
            self()
        return self.validation_loss()

    @torch.no_grad()
    def validation_loss(self, num_batches: int = 8) -> float:
        """Mean over batches that are the same for everyone, in nats per byte."""
        losses = [self._loss("validation", number, 0) for number in range(num_batches)]
        return float(torch.stack(losses).mean())

    def _loss(self, split: str, number: int, seed: int) -> torch.Tensor:
        shape = (self.track.batch_size, self.track.config.context_length)
        batch = self.corpus.batch(number, *shape, split, seed)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
            return next_token_loss(self.model, *(part.to(self.device) for part in batch)).float()


def optimizers_of(name: str, rate: float, model: GPT) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest."""
    if name != MUON:
        return [torch.optim.AdamW(model.parameters(), rate, weight_decay=0.1)]
    hidden, rest = split_parameters(model)
    beside = torch.optim.AdamW(rest, ADAMW_BESIDE_MUON, weight_decay=0.1)
    return [Muon(hidden, rate, weight_decay=0.1), beside]


def algorithm_sweep(device: str, track: Track | None = None) -> Rows:
    """One row a contender: the rate it found, and tokens to the target on every seed."""
    track = track or (CPU_TRACK if device == "cpu" else GPU_TRACK)
    corpus = load_corpus()
    rates = {AS_IT_COMES: DEFAULT_RATE} | {
        name: best_rate(name, track, corpus, device) for name in (ADAMW, MUON)
    }
    curves = {
        name: [Contender(name, rate, track, corpus, seed, device).curve()
               for seed in range(track.num_seeds)]
        for name, rate in rates.items()
    }  # fmt: skip
    target = max(curve.losses[-1] for curve in curves[AS_IT_COMES])
    fresh = {name: Contender(name, rate, track, corpus, 0, device) for name, rate in rates.items()}
    timed = compare(fresh, repeats=15)
    return [
        _row(name, rates[name], track, target, curves[name], timed.timings[name].median_s)
        for name in rates
    ]


def best_rate(name: str, track: Track, corpus: Corpus, device: str) -> float:
    """The tried learning rate with the lowest last validation loss, on the seed for tuning."""
    ends = {
        rate: Contender(name, rate, track, corpus, TUNING_SEED, device).end_loss()
        for rate in track.tried[name]
    }
    return min(ends, key=ends.get)


def reached(curves: Sequence[Curve], target: float) -> Iterator[float]:
    """Steps to the target, of the curves that reach it."""
    for curve in curves:
        steps = curve.steps_to(target)
        if steps is not None:
            yield steps


def _row(
    name: str, rate: float, track: Track, target: float, curves: list[Curve], step_s: float
) -> dict[str, object]:
    tokens = [steps * track.tokens_per_step for steps in reached(curves, target)]
    return {
        "name": name,
        "num_trials": len(track.tried.get(name, ())),
        "learning_rate": rate,
        "num_seeds": len(curves),
        "num_reached": len(tokens),
        "target_loss": target,
        "tokens": tokens,
        "step_s": step_s,
        "tokens_per_step": track.tokens_per_step,
        "curve_steps": list(curves[0].steps),
        "curve_losses": list(curves[0].losses),
    }
