"""Claims 13 to 18: whether more GPUs are faster and cheaper, and which library is the quickest.

How it works: the simulator of `utils.simulate` for time and rent, the formulas of ZeRO and FSDP for
bytes, published tables for the rest. GPUs at half of their peak are an assumption.
Left out: seconds on this machine, where ranks share two cores.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from utils.claims import Claim
from utils.config import PRESETS
from utils.costs import count_parameters
from utils.evidence.finding import Finding, Span, by_cases, by_range
from utils.experiments.zero_batch import batches_that_fit
from utils.hardware import find_chip
from utils.predict_sharded import predict_sharded
from utils.simulate import (
    LINKS,
    ScalingPoint,
    Setup,
    predict_published,
    predict_yafsdp,
    strong_scaling,
)
from utils.simulate.megatron import PUBLISHED_MFU
from utils.yafsdp_table import load_yafsdp_published, summarise
from utils.zero_bill import sent_weights

FEW, MANY, BATCH = 8, (16, 64, 256), 256  # GPUs, and sequences of all of them
RATES = {"400 Gbit/s": 50e9, "25 Gbit/s": 3.125e9, "10 Gbit/s": 1.25e9}  # bytes per second
MEMORY_BYTES = 16e6  # as in lesson 07
# huggingface/blog deepspeed-to-fsdp-and-back.md, June 2024, by Hugging Face and IBM: Granite 7B on
# four A100s, tokens per second and GPU.
SIDE_BY_SIDE = {"FSDP": 3158.7, "DeepSpeed": 3094.5}
SETUPS = {"DeepSpeed": {"Granite 7B, 4 A100s"}, "FSDP": {"Granite 7B, 4 A100s"}}


@lru_cache
def scaled() -> dict[str, dict[int, ScalingPoint]]:
    """GPT-2 1.5B, one batch of 256 sequences, on more and more H100s and three networks."""
    setup = Setup(PRESETS["gpt2-1.5b"], 0.5 * find_chip("H100 SXM").peak_flops())
    found = {}
    for name, rate in RATES.items():
        link = replace(LINKS["InfiniBand 400 Gbit/s"], bytes_per_s=rate)
        points = strong_scaling(replace(setup, between=link), (FEW, *MANY), BATCH)
        found[name] = {point.num_gpus: point for point in points}
    return found


def published_ends() -> tuple[int, int, float]:
    """Megatron-LM's strong scaling: fewest and most GPUs, and how many times as fast."""
    fewest, most = min(PUBLISHED_MFU), max(PUBLISHED_MFU)
    return fewest, most, most / fewest * PUBLISHED_MFU[most][0] / PUBLISHED_MFU[fewest][0]


def more_gpus(claim: Claim) -> Finding:
    """Faster where messages hide; on a slow network even slower."""
    fewest, most, factor = published_ends()
    cases = {f"GPT-3, {fewest} to {most:,} H100s (published)": factor > 1}
    for name, points in scaled().items():
        for number in MANY:
            is_faster = points[number].step_s < points[FEW].step_s
            cases[f"GPT-2 1.5B, {FEW} to {number} at {name}"] = is_faster
    predicted = next(p for p in predict_published() if p.num_gpus == most)
    here = most / fewest * predicted.predicted_mfu / PUBLISHED_MFU[fewest][0]
    slow = scaled()["10 Gbit/s"]
    return by_cases(
        f"published: {most / fewest:.0f} times the GPUs, {factor:.1f} times as fast; simulated: 64 "
        f"GPUs at 10 Gbit/s take {slow[64].step_s / slow[FEW].step_s:.1f} times as long as {FEW}",
        cases,
        Span.of(here),
    )


def dollars_of_more(claim: Claim) -> Finding:
    """Rent of the same tokens on more GPUs, over that on the fewest."""
    fewest, most, factor = published_ends()
    dollars = {f"GPT-3, {fewest} to {most:,} H100s (published)": most / fewest / factor}
    for name, points in scaled().items():
        for number in MANY:
            rents = [points[n].gpu_hours_per_billion_tokens for n in (number, FEW)]
            dollars[f"GPT-2 1.5B, {FEW} to {number} at {name}"] = rents[0] / rents[1]
    fast = Span.of(*(usd for name, usd in dollars.items() if name.endswith("400 Gbit/s")))
    published = next(iter(dollars.values()))
    return by_cases(
        f"the same tokens cost {published:.2f} times as much (published), {fast.text()} times "
        "(simulated, fast network), never less",
        {name: usd < 1 for name, usd in dollars.items()},
        fast,
    )


def zero_baselines(claim: Claim) -> Finding:
    """Ten times what? Against data parallelism ZeRO sends no less; it frees bytes."""
    fit = batches_that_fit(MEMORY_BYTES, num_ranks=2)
    batch = fit[3] / fit[0]
    wire = sent_weights(0, 64) / sent_weights(1, 64)
    wanted = claim.claimed.high
    return by_cases(
        f"against data parallelism: as many bytes sent (stage 1), {batch:.0f} times the sequences "
        f"in {MEMORY_BYTES / 1e6:.0f} MB (stage 3, 2 ranks)",
        {
            "Megatron-LM alone over several servers, V100 (published)": claim.sourced.high
            >= wanted,
            "data parallelism, messages": wire >= wanted,
            "data parallelism, sequences that fit": batch >= wanted,
        },
        Span.of(wire, batch),
    )


def same_algorithm(claim: Claim) -> Finding:
    """ZeRO-3 and FSDP hold and send the same; the one published pair differs by two percent.

    Sent are 3 models, of which FSDP saves the second gather of what is in no block. If a step were
    nothing but messages, that would be its gain.
    """
    model = PRESETS["llama2-7b-shape"]
    zero, fsdp = (predict_sharded(model, each, 64, 1, "bf16") for each in ("ZeRO-3", "FSDP"))
    published = 100 * (SIDE_BY_SIDE["FSDP"] / SIDE_BY_SIDE["DeepSpeed"] - 1)
    count = count_parameters(model)
    most = 100 * (3 / (2 + model.num_layers * count.block / count.total) - 1)
    apart = 100 * abs(fsdp.held.total / zero.held.total - 1)
    return by_range(
        f"published {published:+.1f} % on 4 A100s; one algorithm: 7B on 64 GPUs, bytes held differ "
        f"by {apart:.1f} %, bytes sent by {most:.1f} %",
        claim.claimed,
        Span.of(published),
        Span.of(apart, most),
    )


def published_rows(claim: Claim) -> Finding:
    """YaFSDP's own sixteen rows, and what the simulator makes of them."""
    rows = load_yafsdp_published()
    summary = summarise(rows, (claim.claimed.low, claim.claimed.high))
    gains = Span.of(*(each.speedup_percent for each in predict_yafsdp()))
    return by_cases(
        f"{summary.inside} of {summary.num_rows} published rows inside, {summary.below} below, "
        f"{summary.above} above; median {summary.median_percent:.1f} %; simulated "
        f"{gains.low:.0f} to {gains.high:.0f} %",
        {row.name: claim.claimed.low <= row.speedup_percent <= claim.claimed.high for row in rows},
        gains,
    )


def common_benchmark(claim: Claim) -> Finding:
    """An order of three needs a setup on which all three were run."""
    setups = SETUPS | {"YaFSDP": {row.name for row in load_yafsdp_published()}}
    setups["FSDP"] = setups["FSDP"] | setups["YaFSDP"]
    both = len(setups["DeepSpeed"] & setups["FSDP"]), len(setups["FSDP"] & setups["YaFSDP"])
    common = sorted(set.intersection(*setups.values()))
    return by_cases(
        f"published setups with DeepSpeed and FSDP: {both[0]}, with FSDP and YaFSDP: {both[1]}, "
        f"with all three: {len(common)}",
        {setup: True for setup in common},
    )
