"""Settle a claim: compute its evidence, and let a rule say the verdict.

How it works: `EVIDENCE` maps the key of a claim to the function that computes its finding; the
functions live in `utils.evidence`, a module for each group. `settle` never looks at the verdict
that stands in claims.csv: the tests hold the two against each other.

Left out: what this machine's stopwatch says. Lesson 11 measures it beside the verdicts; no verdict
depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from utils.claims import Claim, find_claim, load_claims
from utils.evidence import checkpointing, cost, hardware, left_out, many_gpus, precision
from utils.evidence.finding import Finding
from utils.timing import one_thread

EVIDENCE: dict[str, Callable[[Claim], Finding]] = {
    "llama_flops": cost.llama_flops,
    "cost_shares": cost.cost_shares,
    "bytes_held": precision.bytes_held,
    "same_flops": precision.same_flops,
    "gpu_ceilings": precision.gpu_ceilings,
    "tpu_bytes": precision.tpu_bytes,
    "levels": precision.levels,
    "apex_dates": precision.apex_dates,
    "flops_again": checkpointing.flops_again,
    "peak_saved": checkpointing.peak_saved,
    "time_again": checkpointing.time_again,
    "torch_can": checkpointing.torch_can,
    "more_gpus": many_gpus.more_gpus,
    "dollars_of_more": many_gpus.dollars_of_more,
    "zero_baselines": many_gpus.zero_baselines,
    "same_algorithm": many_gpus.same_algorithm,
    "published_rows": many_gpus.published_rows,
    "common_benchmark": many_gpus.common_benchmark,
    "who_trains": hardware.who_trains,
    "largest_savings": left_out.largest_savings,
    "prices_vary": hardware.prices_vary,
}


def settle(claim: Claim | int) -> Finding:
    """The finding about a claim, or about the claim of that number, computed now.

    Raises ValueError for an unknown number, or a claim without evidence.
    """
    if isinstance(claim, int):
        claim = find_claim(claim)
    if claim.evidence not in EVIDENCE:
        raise ValueError(
            f"Claim {claim.number} asks for the evidence {claim.evidence!r}; there is: "
            f"{', '.join(EVIDENCE)}."
        )
    with one_thread():
        return EVIDENCE[claim.evidence](claim)


def settle_all(claims: Iterable[Claim] | None = None) -> dict[int, Finding]:
    """The finding about each claim (default: all), by number."""
    return {claim.number: settle(claim) for claim in claims or load_claims()}
