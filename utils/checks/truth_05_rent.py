"""Lab 05, the money: two machines that AWS rents, and GPT-2 1.5B on one GPU of either.

How it works: prices from the course's table, bytes and FLOPs from the course's formulas under
autocast (weights, gradients and Adam take 16 bytes per parameter, copies of weights 2 more).
Left out: working memory during the step. That 40 % of the peak rate is reached is an assumption.
"""

from dataclasses import replace

from utils.checks.truth_05_money import Machine, Technique
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters, forward_flops, training_flops
from utils.hardware import find_chip
from utils.predict_autocast import (
    autocast_block_bytes,
    autocast_head_bytes,
    autocast_saved_bytes,
    weight_copy_bytes,
)
from utils.prices import load_rental_prices

UTILISATION = 0.4
CHIPS = ("A100 40GB", "A100 80GB")


def aws_machines() -> list[Machine]:
    """One GPU of each kind, at AWS's newest price on demand; both are equally fast."""
    rows = [r for r in load_rental_prices() if (r.provider, r.kind) == ("AWS", "on-demand")]
    prices = {row.chip: row.usd_per_gpu_hour for row in reversed(rows)}
    return [
        Machine(chip, int(find_chip(chip).memory_gb * 1e9), prices[chip], 1.0) for chip in CHIPS
    ]


def gpt2_techniques(num_tokens: int) -> list[Technique]:
    """GPT-2 1.5B on sequences of `num_tokens`, plain and with every block checkpointed."""
    config = replace(PRESETS["gpt2-1.5b"], context_length=num_tokens)
    step, again = training_flops(config, 1, num_tokens), _block_flops(config, num_tokens)
    copies = weight_copy_bytes(config)
    fixed_bytes = 16 * count_parameters(config).total + copies
    plain_bytes = autocast_saved_bytes(config, 1, num_tokens) - copies
    return [
        Technique("plain", fixed_bytes, plain_bytes, _seconds(step), 0.0),
        Technique(
            "full", fixed_bytes, _full_bytes(config, num_tokens), _seconds(step + again), 0.0
        ),
    ]


def _full_bytes(config: GPTConfig, num_tokens: int) -> int:
    """Every block's fp32 input, what one block saves, and the loss."""
    inputs = 4 * config.num_layers * num_tokens * config.model_dim
    block = autocast_block_bytes(config, 1, num_tokens)
    return inputs + block + autocast_head_bytes(config, 1, num_tokens)


def _block_flops(config: GPTConfig, num_tokens: int) -> int:
    """FLOPs of the blocks' forward: all but the output layer."""
    head = 2 * num_tokens * config.model_dim * config.vocab_size
    return forward_flops(config, 1, num_tokens) - head


def _seconds(flops: float) -> float:
    return flops / (UTILISATION * 1e12 * find_chip(CHIPS[0]).bf16_tflops)
