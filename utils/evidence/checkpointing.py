"""Claims 9 to 12: what checkpointing adds, saves and costs, and whether torch can do it.

How it works: FLOPs and bytes of real steps of a small GPT (`utils.step_cost`), and peaks of larger
models by the pencil that lesson 04 checked to the byte (`utils.predict_checkpoint`).
Left out: every stopwatch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from utils.checkpoint_steps import CHECKPOINTS, loss_by
from utils.checkpoint_table import plain_and_full
from utils.claims import Claim
from utils.config import PRESETS, GPTConfig
from utils.costs import training_flops
from utils.evidence.finding import Finding, Span, by_cases, by_range
from utils.experiments.checkpointing import keep_linear
from utils.model import build_gpt
from utils.predict_checkpoint import predict_checkpointed_step, recomputed_flops
from utils.step_cost import StepCost, gradients_of, step_cost
from utils.techniques.checkpointing import checkpoint_by_hooks
from utils.techniques.segments import segments
from utils.techniques.selective import checkpoint_keeping

# Narrow heads: per byte of its other activations it writes as many scores as GPT-3 did, or more.
SMALL = GPTConfig(3, 32, 128, 128, attention="explicit")
DEEP = replace(PRESETS["laptop-deep"], attention="explicit")
CASES = {  # config, sequences, tokens of each
    "laptop-deep, 16 sequences": (DEEP, 16, 128),
    "laptop-deep, 1 sequence": (DEEP, 1, 128),
    "GPT-2 124M, 8 sequences": (PRESETS["gpt2-124m"], 8, 1024),
    "GPT-2 1.5B, 1 sequence": (PRESETS["gpt2-1.5b"], 1, 1024),
    "laptop-wide, 16 tokens": (PRESETS["laptop-wide"], 1, 16),
}
WAYS = CHECKPOINTS | {"ours, selective": checkpoint_keeping(keep_linear)}


@lru_cache
def small_costs() -> dict[str, StepCost]:
    """Bytes and FLOPs of one step of SMALL: plain, and with every block checkpointed in WAYS."""
    model, batch = build_gpt(SMALL), _batch()
    plans = {"plain": (tuple(range(3)), checkpoint_by_hooks)}
    plans |= {name: (segments([1] * 3), way) for name, way in WAYS.items()}
    return {
        name: step_cost(partial(loss_by, model, batch, *plan), model, *batch)
        for name, plan in plans.items()
    }


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (2, 1, SMALL.context_length), generator=generator)
    return tokens[0], tokens[1]


def flops_again(claim: Claim) -> Finding:
    """torch's counter: no way to checkpoint does less work than none."""
    costs = dict(small_costs())
    plain = costs.pop("plain").flops
    added = {name: 100 * (cost.flops / plain - 1) for name, cost in costs.items()}
    return by_cases(
        f"FLOPs of a step by torch's counter: {Span.of(*added.values()).text('%')} more, "
        "never less",
        {name: percent <= 0 for name, percent in added.items()},
    )


def saved_percent() -> dict[str, float]:
    """Percent of a whole Adam step's peak that full checkpointing takes away, by the pencil."""
    saved = {}
    for name, (config, size, tokens) in CASES.items():
        plain, full = (
            predict_checkpointed_step(config, size, plan, tokens).peak_bytes
            for plan in plain_and_full(config)
        )
        saved[name] = 100 * (1 - full / plain)
    return saved


def peak_saved(claim: Claim) -> Finding:
    """From hardly anything to more than the article promises."""
    costs, saved = small_costs(), saved_percent()
    selective = 100 * (1 - costs["ours, selective"].kept_bytes / costs["plain"].kept_bytes)
    whole = Span.of(*saved.values())
    cases = saved | {"attention's core only, of kept bytes": selective}
    return by_cases(
        f"every block again: {whole.text('%')} of a step's peak; attention's core alone: "
        f"{selective:.0f} % of the bytes kept",
        {name: percent >= claim.claimed.high for name, percent in cases.items()},
        Span.of(*cases.values()),
    )


def added_percent() -> Span:
    """Percent of FLOPs that running every block again adds, with and without early stop."""
    found = []
    for config, size, tokens in CASES.values():
        plan = plain_and_full(config)[1]
        useful = training_flops(config, size, tokens)
        again = (recomputed_flops(config, size, tokens, plan, stops) for stops in (True, False))
        found += [100 * flops / useful for flops in again]
    return Span.of(*found)


def time_again(claim: Claim) -> Finding:
    """What others timed, beside the FLOPs that are behind it."""
    flops = added_percent()
    return by_range(
        f"published {claim.sourced.text('%')} more time for full checkpoints; FLOPs by the pencil: "
        f"{flops.text('%')} more",
        claim.claimed,
        claim.sourced,
        flops,
    )


def torch_can(claim: Claim) -> Finding:
    """Both of torch's checkpoints: every bit of every gradient, in fewer bytes."""
    model, batch, costs = build_gpt(replace(SMALL, dropout=0.1)), _batch(), small_costs()
    plain = gradients_of(partial(loss_by, model, batch, tuple(range(3)), torch_checkpoint), model)
    cases = {}
    for name in (name for name in CHECKPOINTS if name.startswith("torch")):
        forward = partial(loss_by, model, batch, segments([1] * 3), CHECKPOINTS[name])
        is_equal = torch.equal(gradients_of(forward, model), plain)
        cases[f"{name}: gradients equal"] = is_equal
        cases[f"{name}: lower peak"] = costs[name].peak_bytes < costs["plain"].peak_bytes
    return by_cases(f"torch's two versions, on a GPT with dropout: {len(cases)} checks", cases)
