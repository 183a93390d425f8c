"""What lab 03's judges compare with: fp32 runs, Megatron-LM's rule, the memory meter."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from utils.checks.text_03 import SPEECH
from utils.config import GPTConfig
from utils.corpus import Corpus
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.techniques.loss_scaling import DynamicScaler
from utils.techniques.master_weights import MasterWeights

LEARNING_RATE, MOMENTUM = 2.0**-7, 0.5
START_SCALE, GROWTH_INTERVAL = 2.0**8, 2


@cache
def small_gpt_gradients() -> tuple[Tensor, ...]:
    """The gradient of each parameter of a small GPT on real text, the same for every Python."""
    config = GPTConfig(2, 2, 64, 64)
    model = build_gpt(config)
    text_N = torch.frombuffer(bytearray(SPEECH, "ascii"), dtype=torch.uint8)
    speech = Corpus("a speech", text_N, text_N)
    next_token_loss(model, *speech.batch(0, 4, config.context_length)).backward()
    return tuple(parameter.grad for parameter in model.parameters())


def patient_scales(
    overflowed: Sequence[bool], scale: float, growth_interval: int, patience: int
) -> list[float]:
    """Megatron-LM's rule: growth restores the patience, overflows use it up."""
    scales, num_quiet, num_overflows = [], 0, 0
    for has_inf in overflowed:
        num_quiet = 0 if has_inf else num_quiet + 1
        num_overflows += has_inf
        if has_inf and num_overflows >= patience:
            scale = scale / 2
        if num_quiet == growth_interval:
            scale, num_quiet, num_overflows = scale * 2, 0, 0
        scales.append(scale)
    return scales


@dataclass(frozen=True)
class StepCase:
    """One training step: the gradients of each micro-batch by parameter, and the clipping norm."""

    name: str
    micro_batches: tuple[tuple[Tensor, ...], ...]
    max_norm: float
    overflows: bool = False


@dataclass(frozen=True)
class StepRecord:
    """What a step did; gradients and masters are one flat fp32 tensor, None without an update."""

    gradient: Tensor | None
    masters: Tensor
    weights: Tensor
    scale: float
    left: bool = False  # whether gradients were left behind
    num_updates: int = 1


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All values behind each other, as fp32 copies."""
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors])


class ToyModel(nn.Module):
    """Two tensors around 1, where fp16 numbers lie 2**-10 apart; the seed is fixed."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(1 + 0.3 * torch.rand(3, 4, generator=generator))
        self.bias = nn.Parameter(1 + 0.3 * torch.rand(4, generator=generator))

    def loss(self, gradients: Sequence[Tensor]) -> Tensor:
        """A loss, linear in the weights, whose gradients are the given ones."""
        pairs = zip(self.parameters(), gradients, strict=True)
        return sum((weight.float() * gradient).sum() for weight, gradient in pairs)


def _gradients(seed: int, size: float) -> tuple[Tensor, Tensor]:
    """Gradients of 8 bits, so that fp16 holds them exactly at any of the scales used here."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(64, 256, (16,), generator=generator).float() * size / 256
    signs = torch.randint(0, 2, (16,), generator=generator) * 2 - 1
    return (whole * signs)[:12].reshape(3, 4), (whole * signs)[12:]


@cache
def step_cases() -> tuple[StepCase, ...]:
    """Six steps, each of which brings out one more mistake."""
    plain, large, tiny = _gradients(1, 2.0**-4), _gradients(2, 2.0**-4), _gradients(3, 2.0**-16)
    huge, third, fourth = _gradients(4, 2.0**12), _gradients(5, 2.0**-4), _gradients(6, 2.0**-3)
    nan = (plain[0], plain[1] * torch.nan)
    return (
        StepCase("one micro-batch, nothing to clip", (plain,), 1e6),
        StepCase("two micro-batches, nothing to clip", (large, tiny), 1e6),
        StepCase("an overflow in the first of two micro-batches", (huge, plain), 1.0, True),
        StepCase("a gradient to be clipped", (third,), 0.0625),
        StepCase("a NaN", (nan,), 1.0, True),
        StepCase("a gradient below the clipping norm", (fourth, plain), 1.0),
    )


def true_gradient(case: StepCase) -> Tensor:
    """The mean over the micro-batches, clipped, in fp32."""
    parameters = [nn.Parameter(torch.zeros_like(each)) for each in case.micro_batches[0]]
    for k, parameter in enumerate(parameters):
        parameter.grad = torch.stack([each[k] for each in case.micro_batches]).mean(dim=0)
    clip_grad_norm_(parameters, case.max_norm)
    return flat(parameter.grad for parameter in parameters)


@cache
def true_run() -> tuple[StepRecord, ...]:
    """The run in fp32, without scaler or 16-bit weights; an overflow is a step left out."""
    weights = nn.Parameter(flat(ToyModel().parameters()))
    optimizer = torch.optim.SGD([weights], LEARNING_RATE, MOMENTUM)
    overflows = [case.overflows for case in step_cases()]
    scales = patient_scales(overflows, START_SCALE, GROWTH_INTERVAL, patience=1)
    records = []
    for case, scale in zip(step_cases(), scales, strict=True):
        weights.grad = None if case.overflows else true_gradient(case)
        optimizer.step()
        records.append(StepRecord(weights.grad, flat([weights]), flat([weights.half()]), scale))
    return tuple(records)


def run_steps(training_step: Callable) -> list[StepRecord]:
    """The same six steps through someone's loop, with fp16 weights and a scaler."""
    model = ToyModel()
    masters = MasterWeights(model, torch.float16)
    optimizer = torch.optim.SGD(masters.parameters(), LEARNING_RATE, MOMENTUM)
    scaler = DynamicScaler(START_SCALE, growth_interval=GROWTH_INTERVAL)
    seen: list[Tensor] = []

    def record_gradient(*_: object) -> None:
        gradients = [m.grad if m.grad is not None else 0 * m for m in masters.parameters()]
        seen.append(flat(gradients))

    optimizer.register_step_pre_hook(record_gradient)
    records = []
    for case in step_cases():
        seen.clear()
        losses = [lambda each=each: model.loss(each) for each in case.micro_batches]
        training_step(masters, optimizer, scaler, losses, case.max_norm)
        tensors = [*model.parameters(), *masters.parameters()]
        left = any(t.grad is not None and bool(t.grad.count_nonzero()) for t in tensors)
        gradient = seen[-1] if seen else None
        now = flat(masters.parameters()), flat(model.parameters()), scaler.loss_scale
        records.append(StepRecord(gradient, *now, left, len(seen)))
    return records


def drift(training_step: Callable) -> float:
    """How far the masters end from fp32's, as a share of the way that fp32 goes."""
    end, start = true_run()[-1].masters, flat(ToyModel().parameters())
    return ((run_steps(training_step)[-1].masters - end).norm() / (end - start).norm()).item()


@cache
def o2_held_bytes(config: GPTConfig, num_micro_batches: int) -> tuple[int, int]:
    """Bytes held at the end of the last backward and at the step, under the meter."""
    model = build_gpt(config)
    masters = MasterWeights(model, torch.float16)
    adam = torch.optim.AdamW(masters.parameters())
    batch = [torch.zeros(1, config.context_length, dtype=torch.long) for _ in range(2)]
    next_token_loss(model, *batch).backward()
    masters.collect_gradients()
    adam.step()
    adam.zero_grad()
    with MemoryMeter(model, adam) as meter:
        meter.label("parameters", *masters.parameters())
        for number in range(num_micro_batches):
            next_token_loss(model, *batch).backward()
            meter.mark(f"backward {number + 1}")
            masters.collect_gradients()
            meter.label("gradients", *(master.grad for master in masters.parameters()))
        meter.mark("step")
    report, held = meter.report(), ("parameters", "gradients", "optimizer state")
    moments = (f"backward {num_micro_batches}", "step")
    first, second = (sum(report.at_mark(m)[name] for name in held) for m in moments)
    return first, second
