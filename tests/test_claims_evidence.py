"""Verdicts follow from evidence: the table agrees with the rules; other evidence changes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from utils.claims import Claim, find_claim, load_claims
from utils.claims_evidence import EVIDENCE, settle, settle_all
from utils.evidence import checkpointing, hardware, left_out, many_gpus, precision
from utils.evidence.finding import (
    HOLDS,
    ONLY_IF,
    OVERSTATED,
    VERDICTS,
    WRONG,
    Finding,
)
from utils.named_hardware import load_named_hardware
from utils.simulate.megatron import PUBLISHED_MFU
from utils.yafsdp_table import ARTICLE_PERCENT, load_yafsdp_published

CLAIMS = {claim.number: claim for claim in load_claims()}


@pytest.fixture(scope="module")
def findings() -> dict[int, Finding]:
    return settle_all()


@pytest.mark.parametrize("number", CLAIMS)
def test_the_verdict_in_the_table_is_the_computed_one(number, findings):
    claim, finding = CLAIMS[number], findings[number]
    assert finding.verdict == claim.verdict, f"claim {number}: {finding.evidence}"


def test_the_table_uses_all_five_verdicts_and_is_not_one_sided(findings):
    assert {finding.verdict for finding in findings.values()} == set(VERDICTS)
    assert sum(finding.verdict in (HOLDS, ONLY_IF) for finding in findings.values()) > 10


def test_evidence_holds_numbers(findings):
    for number, finding in findings.items():
        assert any(character.isdigit() for character in finding.evidence), number
        assert len(finding.evidence) < 260 and "\n" not in finding.evidence


OTHERWISE = [  # the same claim with another source or another claim, and the verdict that follows
    (1, {"claimed_low": 8e23}, HOLDS),
    (1, {"claimed_low": 8.5e23}, ONLY_IF),
    (2, {"sourced_low": 1.0, "sourced_high": 4.0}, HOLDS),
    (5, {"claimed_low": 1.5, "claimed_high": 1.5}, HOLDS),
    (5, {"claimed_low": 40.0, "claimed_high": 40.0}, WRONG),
    (6, {"sourced_low": 2.2, "sourced_high": 2.8}, HOLDS),
    (6, {"sourced_high": 2.5}, ONLY_IF),
    (10, {"claimed_low": 90.0, "claimed_high": 90.0}, WRONG),
    (11, {"sourced_low": 16.0, "sourced_high": 24.0}, HOLDS),
    (11, {"sourced_low": 2.0, "sourced_high": 5.0}, OVERSTATED),
    (15, {"sourced_low": 3.0, "sourced_high": 3.0}, WRONG),
    (15, {"claimed_low": 1.0, "claimed_high": 1.0}, HOLDS),
    (16, {"claimed_low": 1.0, "claimed_high": 3.0}, HOLDS),
    (17, {"claimed_low": 2.0, "claimed_high": 27.0}, HOLDS),
    (17, {"claimed_low": 30.0, "claimed_high": 40.0}, WRONG),
]


@pytest.mark.parametrize(("number", "changes", "verdict"), OTHERWISE)
def test_another_number_gives_another_verdict(number: int, changes: dict, verdict: str):
    assert settle(replace(CLAIMS[number], **changes)).verdict == verdict


def test_counted_flops_decide_about_fewer_calculations(monkeypatch):
    assert precision.count_flops(True) == precision.count_flops(False) > 0
    monkeypatch.setattr(precision, "count_flops", lambda is_low: 50 if is_low else 100)
    assert settle(4).verdict == HOLDS


def test_dates_decide_about_apex(monkeypatch):
    monkeypatch.setattr(precision, "APEX_REMOVED", date(2024, 1, 1))
    assert settle(8).verdict == WRONG
    monkeypatch.setattr(precision, "APEX_REMOVED", date(2030, 1, 1))
    assert settle(8).verdict == HOLDS


def test_losses_decide_about_accuracy(monkeypatch, findings):
    assert findings[7].cases == {"O1": True, "O2": True, "O2, scale 1": False, "O3": False}
    close = dict.fromkeys(["O0", *precision.LEVELS], 3.0)
    monkeypatch.setattr(precision, "final_losses", lambda: close)
    assert settle(7).verdict == HOLDS
    monkeypatch.setattr(precision, "final_losses", lambda: close | {"O1": float("nan")})
    assert settle(7).verdict == ONLY_IF


def test_memory_of_sixteen_bits(findings):
    cases = findings[3].cases
    assert not cases["weights, gradients and Adam"]
    assert cases["saved for backward, gpt2-124m, 8 sequences"]
    assert not cases["saved for backward, gpt2-1.5b, 1 sequence"]


def test_checkpoints_add_work_and_save_bytes(findings, monkeypatch):
    costs = checkpointing.small_costs()
    assert costs["ours, hooks"].flops == costs["torch's, not reentrant"].flops
    assert costs["plain"].flops < costs["ours, selective"].flops < costs["ours, hooks"].flops
    saved = checkpointing.saved_percent()
    assert round(saved["laptop-deep, 16 sequences"], 1) == 83.2
    assert 17 < findings[11].span.low < findings[11].span.high < 100 / 3
    free = {name: cost._replace(flops=costs["plain"].flops) for name, cost in costs.items()}
    monkeypatch.setattr(checkpointing, "small_costs", lambda: free)
    assert settle(9).verdict == HOLDS


def test_a_checkpoint_with_wrong_gradients_would_not_hold(monkeypatch):
    checkpoints = checkpointing.CHECKPOINTS | {"torch's, broken": lambda f, x: f(x) * 1.5}
    costs = checkpointing.small_costs()
    costs = costs | {"torch's, broken": costs["ours, hooks"]}
    monkeypatch.setattr(checkpointing, "CHECKPOINTS", checkpoints)
    monkeypatch.setattr(checkpointing, "small_costs", lambda: costs)
    assert settle(12).verdict == ONLY_IF


def test_more_gpus_cost_more_everywhere(findings):
    assert not any(findings[14].cases.values())
    assert findings[13].cases["GPT-2 1.5B, 8 to 64 at 400 Gbit/s"]
    assert not findings[13].cases["GPT-2 1.5B, 8 to 64 at 10 Gbit/s"]


def test_columns_agree_with_the_tables_behind_them():
    fewest, most, factor = many_gpus.published_ends()
    assert (fewest, most) == (min(PUBLISHED_MFU), max(PUBLISHED_MFU)) == (96, 4608)
    assert CLAIMS[13].sourced.high == round(factor, 1)
    assert CLAIMS[14].sourced.high == round(most / fewest / factor, 2)
    percents = [row.speedup_percent for row in load_yafsdp_published()]
    low, high = min(percents), max(percents)
    assert (CLAIMS[17].sourced.low, CLAIMS[17].sourced.high) == (round(low, 1), round(high, 1))
    assert (CLAIMS[17].claimed.low, CLAIMS[17].claimed.high) == ARTICLE_PERCENT
    named, factors = left_out.speed_factors()
    assert (CLAIMS[20].sourced.low, CLAIMS[20].sourced.high) == (
        round(min(factors.values()), 2), round(max(factors.values()), 1)
    )  # fmt: skip
    assert max(named.values()) == CLAIMS[15].claimed.high
    assert CLAIMS[21].sourced.high == round(max(hardware.price_factors().values()), 1)
    fsdp, deepspeed = many_gpus.SIDE_BY_SIDE["FSDP"], many_gpus.SIDE_BY_SIDE["DeepSpeed"]
    assert CLAIMS[16].sourced.high == round(100 * (fsdp / deepspeed - 1), 1)


def test_the_condition_of_yafsdp_is_what_the_rows_say(findings):
    inside = [name for name, yes in findings[17].cases.items() if yes]
    short = [name for name in findings[17].cases if "2,048 tokens" in name]
    assert len(inside) == 5 and len(short) == 8 and set(inside) <= set(short)
    assert "five of eight rows at 2,048, none at 4,096" in CLAIMS[17].condition


def test_a_common_benchmark_would_settle_the_order(monkeypatch):
    assert settle(18).cases == {}
    row = load_yafsdp_published()[0].name
    monkeypatch.setattr(many_gpus, "SETUPS", {"DeepSpeed": {row}, "FSDP": set()})
    assert list(settle(18).cases) == [row]


def test_a_chip_that_trains_and_can_be_had_counts(monkeypatch, findings):
    cases = findings[19].cases
    assert cases["B200"] and cases["TPU v5p"] and "Kunlun P800" not in cases  # after the article
    assert not any(cases[name] for name in ("Maia 100", "MTIA v1", "MTIA v2", "Sohu"))
    sold = [replace(each, access="sold") for each in load_named_hardware()]
    monkeypatch.setattr(hardware, "load_named_hardware", lambda: sold)
    assert settle(19).cases["Maia 100"] and not settle(19).cases["Sohu"]


def test_levers_and_prices(findings, monkeypatch):
    assert findings[20].span is None and "36.6 x" in findings[20].evidence
    assert findings[21].span.high == pytest.approx(12.29 / 2.69)
    beats_the_shop = {name.split()[0]: yes for name, yes in findings[21].cases.items()}
    assert beats_the_shop["DeepSpeed"] and not beats_the_shop["FSDP"]
    monkeypatch.setattr(hardware, "technique_factors", lambda: {"a": 2.0})
    assert settle(21).verdict == WRONG
    monkeypatch.setattr(hardware, "technique_factors", lambda: {"a": 5.0})
    assert settle(21).verdict == HOLDS
    monkeypatch.setattr(left_out, "speed_factors", lambda: ({"a": 10.0}, {"b": 9.0}))
    assert settle(20).verdict == HOLDS


def test_settle_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="There is no claim 0"):
        settle(0)
    unknown: Claim = replace(find_claim(3), evidence="hearsay")
    with pytest.raises(ValueError, match="asks for the evidence 'hearsay'; there is: llama_flops"):
        settle(unknown)
    assert len(EVIDENCE) == 21
