"""Claim 20: what the article does not name, beside the largest factors that it does.

How it works: `utils.levers` has every lever with its published factors; one that the article names
has a claimed range. Its own factors count at face value, those left out as their sources say.
Left out: whether factors multiply (they overlap), and levers that divide anything but seconds.
"""

from __future__ import annotations

from utils.claims import Claim
from utils.evidence.finding import Finding, by_rivals
from utils.levers import levers


def speed_factors() -> tuple[dict[str, float], dict[str, float]]:
    """Largest factors by lever: named by the article, as claimed; left out, as sourced."""
    rows = [each for each in levers() if each.divides == "seconds"]
    named = {each.lever: each.claimed[1] for each in rows if each.claimed}
    left_out = {each.lever: each.sourced[1] for each in rows if not each.claimed and each.sourced}
    return named, left_out


def largest_savings(claim: Claim) -> Finding:
    """Even at face value, nothing that is named is as large as what is not."""
    named, rivals = speed_factors()
    (first, most), *rest = sorted(rivals.items(), key=lambda pair: -pair[1])
    others = ", ".join(f"{name} {factor:.3g} x" for name, factor in rest)
    return by_rivals(
        f"largest factor named: {max(named.values()):.0f} x; left out: {first}, {most:.1f} x; "
        f"up to: {others}",
        named,
        rivals,
    )
