"""Seconds of a step by part: laws that any such model must obey, and figures by hand."""

from dataclasses import replace

import pytest

from utils.config import PRESETS
from utils.costs import training_flops
from utils.hardware import find_chip
from utils.planning.assumptions import (
    Assumptions,
    between_link,
    inside_link,
    memory_bytes_per_s,
    product_flops,
)
from utils.planning.step_time import step_time
from utils.recipe import TrainingRecipe
from utils.simulate.links import LINKS, Link, cluster_of

GPT = PRESETS["gpt2-124m"]
ASSUMED = Assumptions()
H100 = find_chip("H100 SXM")
FREE = Link(0.0, float("inf"))


def step(recipe, config=GPT, chip=H100, assumed=ASSUMED, inside=None, between=None):
    cluster = cluster_of(
        recipe.num_ranks, inside or inside_link(chip), between or between_link(chip)
    )
    return step_time(recipe, config, chip, cluster, assumed)


def fsdp(**changes):
    plain = {"precision": "bf16", "method": "fsdp", "num_ranks": 8, "batch_size": 8}
    return TrainingRecipe(**{**plain, **changes})


def test_the_rates_are_the_tables_times_the_shares():
    bf16 = product_flops(H100, "bf16", ASSUMED)
    assert bf16 == pytest.approx(794.5e12 * ASSUMED.matmul_share)  # measured there
    fp32 = product_flops(H100, "fp32", ASSUMED)
    assert fp32 == pytest.approx(67e12 * 0.8 * ASSUMED.matmul_share)  # of the peak, not measured
    assert memory_bytes_per_s(H100, ASSUMED) == pytest.approx(3.35e12 * 0.85)


def test_links_follow_the_chip():
    assert inside_link(H100) is LINKS["NVLink 4 (H100)"]
    assert inside_link(find_chip("H100 PCIe")) is LINKS["PCIe 5 x16"]
    assert inside_link(find_chip("RTX 4090")) is LINKS["PCIe 4 x16"]
    assert between_link(find_chip("RTX 4090")).bytes_per_s == 25e9 / 8 / 8  # bits, eight cards
    assert between_link(H100).bytes_per_s == 2 * between_link(find_chip("A100 80GB")).bytes_per_s


def test_parts_add_up_and_one_gpu_sends_nothing():
    alone = step(TrainingRecipe("bf16", batch_size=8))
    assert sum(alone.parts_s.values()) == pytest.approx(alone.total_s)
    assert alone.parts_s["exposed messages"] == alone.parts_s["slowed by messages"] == 0
    assert alone.tokens == 8 * 1024
    assert alone.mfu == pytest.approx(
        training_flops(GPT, 8, 1024) / alone.total_s / 989e12, rel=1e-9
    )


def test_products_take_the_exact_flops_when_attention_costs_what_it_skips():
    alone = step(TrainingRecipe("bf16", batch_size=8))
    rate = product_flops(H100, "bf16", ASSUMED)
    assert alone.parts_s["products"] == pytest.approx(training_flops(GPT, 8, 1024) / rate)


def test_checkpointing_costs_less_than_a_third_more_and_sends_no_more():
    plain, again = step(fsdp()), step(fsdp(checkpointing="blocks"))
    more = again.parts_s["run again"] / (plain.parts_s["products"] + plain.parts_s["element-wise"])
    assert 0.15 < more < 1 / 3
    assert plain.parts_s["run again"] == 0
    assert plain.model_flops == again.model_flops  # what runs twice counts once


def test_free_links_cost_nothing_and_slow_ones_are_exposed():
    free = step(fsdp(num_ranks=16), inside=FREE, between=FREE)
    assert free.parts_s["exposed messages"] == pytest.approx(0, abs=1e-12)
    fast, slow = (
        step(fsdp(num_ranks=16), between=LINKS[name])
        for name in ("InfiniBand 400 Gbit/s", "Ethernet 25 Gbit/s")
    )
    assert fast.parts_s["exposed messages"] < slow.parts_s["exposed messages"]
    assert fast.parts_s["products"] == slow.parts_s["products"]


def test_hidden_messages_slow_compute_by_the_share_that_was_fitted():
    slowed = step(fsdp(num_ranks=16)).parts_s["slowed by messages"]
    double = replace(ASSUMED, contention=2 * ASSUMED.contention)
    assert step(fsdp(num_ranks=16), assumed=double).parts_s[
        "slowed by messages"
    ] == pytest.approx(2 * slowed)
    assert slowed > 0


def test_micro_batches_cost_ddp_no_more_messages_and_fsdp_gathers():
    link = {"between": LINKS["Ethernet 25 Gbit/s"], "inside": LINKS["Ethernet 25 Gbit/s"]}
    for method, grows in (("ddp", False), ("zero1", False), ("zero2", True), ("fsdp", True)):
        library = "deepspeed" if method.startswith("zero") else "torch"
        one, four = (
            step(fsdp(method=method, library=library, micro_batches=count), **link).parts_s
            for count in (1, 4)
        )
        waits = four["exposed messages"] / one["exposed messages"]
        assert (waits > 1.5) == grows, method


def test_fp32_is_as_much_slower_as_the_chips_rate():
    low, full = (
        step(TrainingRecipe(name, method="ddp", num_ranks=8)).parts_s["products"]
        for name in ("bf16", "fp32")
    )
    assert full / low == pytest.approx(794.5 / (67 * 0.8))


def test_explicit_attention_moves_its_scores():
    fused, explicit = (
        step(TrainingRecipe("bf16", attention, batch_size=8)) for attention in ("fused", "explicit")
    )
    assert explicit.total_s > 1.2 * fused.total_s
    assert explicit.model_flops == fused.model_flops


def test_a_tiny_model_is_bound_by_the_processor():
    tiny = step(TrainingRecipe("bf16", batch_size=1), PRESETS["laptop"])
    assert tiny.total_s > 4 * 60 * ASSUMED.kernel_s  # four blocks of sixty kernels
    assert tiny.mfu < 0.01


def test_gpu_hours_follow_from_tokens_a_second():
    found = step(fsdp())
    assert found.gpu_hours(1e9) == pytest.approx(1e9 / found.tokens_per_s * 8 / 3600)


@pytest.mark.parametrize("changes, words", [
    ({"matmul_share": 0.0}, "matmul_share is 0.0"),
    ({"bandwidth_share": 1.2}, "bandwidth_share is 1.2; it must be above 0, a share at most 1"),
    ({"pue": 0.9}, "pue is 0.9"),
])  # fmt: skip
def test_impossible_assumptions_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(ASSUMED, **changes)


def test_a_cluster_of_another_size_and_a_missing_rate_are_refused():
    cluster = cluster_of(8, FREE, FREE)
    with pytest.raises(ValueError, match="for 16 ranks, but the cluster has 8"):
        step_time(fsdp(num_ranks=16), GPT, H100, cluster, ASSUMED)
    with pytest.raises(ValueError, match="The table has no bf16 rate for V100 32GB"):
        step(fsdp(), chip=find_chip("V100 32GB"))
