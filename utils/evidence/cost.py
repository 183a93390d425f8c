"""Claims 1 and 2: how much work Llama-2-70B was, and what its bill consists of.

How it works: FLOPs from `utils.costs`, hours from the model card (`utils.prices`), rent at the
cheapest and the dearest price per hour that the table has for that chip.
Left out: interest, buildings, networks; the sourced shares of people are the table's own.
"""

from __future__ import annotations

from utils.claims import Claim
from utils.config import PRESETS
from utils.costs import rule_of_thumb_flops, training_flops
from utils.evidence.finding import Finding, Span, by_cases, by_range
from utils.prices import (
    energy_kwh,
    find_training_run,
    load_electricity_prices,
    load_rental_prices,
    rent_usd,
)

LLAMA, MODEL = "Llama-2-70B", PRESETS["llama2-70b-shape"]
MINOR_PERCENT = 10.0  # "rather than people" would need people to be less than this


def llama_flops(claim: Claim) -> Finding:
    """6ND and the exact count, against "at least 10^24"."""
    run, context = find_training_run(LLAMA), MODEL.context_length
    thumb = rule_of_thumb_flops(run.active_parameters, run.tokens)
    exact = training_flops(MODEL, 1, context) / context * run.tokens
    excess = Span.of(*(100 * (claim.claimed.low / flops - 1) for flops in (exact, thumb)))
    return by_range(
        f"6ND {thumb:.2e}, with attention {exact:.2e}: 1e24 is {excess.text('%')} too much",
        claim.claimed,
        Span.of(thumb, exact),
    )


def electricity_percent() -> Span:
    """Electricity of the GPUs alone as a share of their rent, dearest to cheapest hour."""
    run = find_training_run(LLAMA)
    power = next(row for row in load_electricity_prices() if row.customer == "commercial")
    energy_usd = energy_kwh(run.gpu_hours, run.watts_per_gpu) * power.usd_per_kwh
    hours = [row.usd_per_gpu_hour for row in load_rental_prices() if row.chip == run.chip]
    return Span.of(*(100 * energy_usd / rent_usd(run.gpu_hours, usd) for usd in hours))


def cost_shares(claim: Claim) -> Finding:
    """Hardware against electricity, computed; against people, by Epoch's shares."""
    power, people = electricity_percent(), claim.sourced
    return by_cases(
        f"electricity is {power.text('%')} of the rent of {LLAMA}'s GPUs; people {people.text('%')}"
        " of a frontier model's cost (Epoch)",
        {
            "a run of a known recipe: hardware over electricity": power.high < 50,
            "a new frontier model: people are a minor cost": people.high < MINOR_PERCENT,
        },
        people,
    )
