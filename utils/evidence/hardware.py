"""Claims 19 and 21: which of the named chips train, and how much one chip's price varies.

How it works: `utils.named_hardware` says who trains and who only serves, and who can have it; the
price table says what one chip cost on one day.
Left out: what a price does not tell, such as the network that comes with it.
"""

from __future__ import annotations

from utils.claims import Claim
from utils.evidence.finding import Finding, Span, by_cases
from utils.levers import levers
from utils.named_hardware import load_named_hardware
from utils.price_per_flop import spot_discounts, widest_day

CHIP = "H100 SXM"


def who_trains(claim: Claim) -> Finding:
    """Chips named before the article appeared: do they train, and can anybody have them?"""
    chips = [each for each in load_named_hardware() if each.use != "market"]
    chips = [each for each in chips if not each.after_article]
    serves = [each.name for each in chips if not each.trains]
    can_be_had = {
        each.name: each.trains and each.access.startswith(("sold", "rented")) for each in chips
    }
    those = [name for name, yes in can_be_had.items() if yes]
    return by_cases(
        f"of {len(chips)} chips, {len(serves)} only serve ({', '.join(serves)}); trains and can be "
        f"had: {', '.join(those) or 'none'}",
        can_be_had,
    )


def technique_factors() -> dict[str, float]:
    """The largest factor that a source gives to each technique of the article: times as fast."""
    rows = [each for each in levers() if each.divides == "seconds" and each.claimed]
    return {each.lever: each.sourced[1] for each in rows if each.sourced}


def price_factors() -> dict[str, float]:
    """Dearest over cheapest hour of one chip on its widest day, and on demand over spot."""
    day = widest_day(CHIP)
    cheapest = min(1 + move.change for move in spot_discounts())
    return {f"{CHIP} on {day.day}": day.ratio, "on demand over spot": 1 / cheapest}


def prices_vary(claim: Claim) -> Finding:
    """Which technique, at its best, is worth more than a telephone call?"""
    day, techniques, prices = widest_day(CHIP), technique_factors(), price_factors()
    factors = ", ".join(f"{name} {factor:.3g} x" for name, factor in techniques.items())
    return by_cases(
        f"one {CHIP} on {day.day}: ${day.low:.2f} to ${day.high:.2f}, {day.ratio:.1f} x; at best: "
        f"{factors}",
        {name: factor > day.ratio for name, factor in techniques.items()},
        Span.of(*prices.values()),
    )
