"""The roofline: times by hand, ceilings that no format can pass, and published runs below it."""

import math
from dataclasses import replace

import pytest

from utils.config import PRESETS, GPTConfig
from utils.costs import training_flops
from utils.hardware import find_chip, load_chips
from utils.roofline import (
    flops_rate,
    has_rates,
    roofline,
    roofline_chips,
    speed_up,
)
from utils.roofline_tables import (
    SHOWN_CHIPS,
)
from utils.roofline_work import VECTOR, step_operations
from utils.simulate.llama import find_llama

GPT2 = PRESETS["gpt2-124m"]
SMALL = PRESETS["laptop"]
# Llama 3.1 8B in our shape: 21,504 = 14,336 x 3 / 2, two plain matrices for three gated ones.
LLAMA_8B = GPTConfig(32, 32, 4096, 8192, 128_256, 21_504, 8, bias=False)


def seconds_of(line, products):
    return sum(line.seconds(o) for o in line.operations if (o.format != VECTOR) == products)


def test_a_time_is_the_slower_of_computing_and_moving():
    line = roofline("H100 SXM", GPT2, 8, "bf16")
    for each in line.operations:
        rate = 67e12 if each.format == VECTOR else 989e12
        assert line.compute_s(each) == pytest.approx(each.flops / rate)
        assert line.memory_s(each) == pytest.approx(each.num_bytes / 3.35e12)
        assert line.seconds(each) == max(line.compute_s(each), line.memory_s(each))
        by_ridge = each.intensity > rate / 3.35e12
        assert by_ridge == (line.compute_s(each) > line.memory_s(each))
    assert line.step_s == pytest.approx(sum(part.seconds for part in line.parts.values()))
    assert line.num_bytes == sum(part.num_bytes for part in line.parts.values())
    assert line.mfu == pytest.approx(training_flops(GPT2, 8, 1024) / 989e12 / line.step_s)


def test_parts_say_what_binds_them():
    parts = roofline("H100 SXM", GPT2, 8).parts
    waiting = [name for name, part in parts.items() if part.bound_by == "memory"]
    assert waiting == ["norms", "GELU", "residual", "loss", "embedding", "optimizer"]
    share = sum(parts[name].seconds for name in waiting) / sum(p.seconds for p in parts.values())
    assert roofline("H100 SXM", GPT2, 8).memory_bound_share == pytest.approx(share)
    small = roofline("H100 SXM", SMALL, 8)
    assert small.memory_bound_share == pytest.approx(1)
    assert {part.bound_by for part in small.parts.values()} == {"memory"}


def test_work_outside_of_products_waits_for_memory_on_every_chip_even_at_thrice_the_flops():
    """So that the FLOPs per value, which are a convention, decide no time."""
    for chip in roofline_chips():
        rate = flops_rate(chip, VECTOR)
        for each in step_operations(GPT2, 8, "bf16"):
            if each.format == VECTOR:
                assert 3 * each.flops / rate < each.num_bytes / (chip.bandwidth_tb_s * 1e12)


@pytest.mark.parametrize("model", ["laptop", "gpt2-124m", "gpt2-1.5b", "llama2-7b-shape"])
def test_no_step_gains_more_than_its_peaks_or_its_bytes(model):
    """The gain lies between that of bytes (2, and 1 for the optimizer) and that of the peaks."""
    for name in SHOWN_CHIPS:
        chip = find_chip(name)
        peaks = flops_rate(chip, "bf16") / flops_rate(chip, "fp32")
        gain = speed_up(chip, PRESETS[model], 4)
        assert 1 < gain <= max(2, peaks) * (1 + 1e-9)


@pytest.mark.parametrize("name", ["RTX 3090", "RTX 4090"])
def test_a_consumer_card_gains_at_most_twice(name):
    for batch_size in (1, 8, 64):
        gains = [speed_up(name, GPT2, batch_size, kind) for kind in ("autocast", "bf16")]
        assert 1 < gains[0] < gains[1] < 2


def test_nothing_gains_more_than_twice_over_tf32():
    with_tf32 = [chip for chip in map(find_chip, SHOWN_CHIPS) if has_rates(chip, "tf32")]
    assert len(with_tf32) == 8
    for chip in with_tf32:
        assert flops_rate(chip, "bf16") / flops_rate(chip, "tf32") == pytest.approx(2, rel=0.01)
        assert 1 < speed_up(chip, GPT2, 8, "bf16", "tf32") < 2


def test_a_tpu_multiplies_in_bf16_already_so_that_only_bytes_shrink():
    for name in ("TPU v4", "TPU v5e", "TPU v5p", "TPU v6e"):
        old, new = (roofline(name, LLAMA_8B, 1, kind) for kind in ("fp32", "bf16"))
        assert flops_rate(old.chip, "fp32") == flops_rate(old.chip, "bf16")
        assert old.num_bytes > 1.5 * new.num_bytes
        assert 1 < old.step_s / new.step_s < 1.6  # the TensorFlow guide says 60 %
        for before, after in zip(old.operations, new.operations, strict=True):
            assert before.flops == after.flops and before.num_bytes >= after.num_bytes
            assert old.compute_s(before) == new.compute_s(after)
    with pytest.raises(ValueError, match="a TPU's compiler casts inside other operations; use"):
        roofline("TPU v5e", GPT2, 8, "autocast")


def test_what_waits_for_memory_gains_the_ratio_of_its_bytes():
    old, new = (roofline("A100 80GB", GPT2, 8, kind) for kind in ("fp32", "bf16"))
    for name in ("norms", "GELU", "residual", "loss", "embedding"):
        assert old.parts[name].seconds / new.parts[name].seconds == pytest.approx(2)
    assert old.parts["optimizer"].seconds == new.parts["optimizer"].seconds
    assert 1.7 < seconds_of(old, products=False) / seconds_of(new, products=False) < 2


def test_fp8_helps_large_layers_and_not_small_ones():
    """torchtitan measured 1.28 on 8B; nanochat 1.17 in training and a loss of time on d12."""
    assert speed_up("H100 SXM", LLAMA_8B, 1, "fp8", "bf16") > 1.28
    at_measured_rates = speed_up("H100 SXM", LLAMA_8B, 1, "fp8", "bf16", measured=True)
    assert at_measured_rates == pytest.approx(1.28, rel=0.03)
    assert speed_up("H100 SXM", GPT2, 8, "fp8", "bf16") < 1.05
    assert speed_up("H100 SXM", SMALL, 8, "fp8", "bf16") < 1
    line = roofline("H100 SXM", LLAMA_8B, 1, "fp8")
    plain = roofline("H100 SXM", LLAMA_8B, 1, "bf16")
    for part in ("attention scores", "output layer", "loss", "norms"):
        assert line.parts[part] == plain.parts[part]


def test_published_runs_lie_below_the_roofline():
    """torchtitan, Llama 3.1 8B on H100s (2024-12): tokens per second and GPU, with compile."""
    for precision, measured_tokens_per_s in (("bf16", 6667), ("fp8", 8532)):
        bound = 8192 / roofline("H100 SXM", LLAMA_8B, 1, precision).step_s
        assert measured_tokens_per_s < bound < 4 * measured_tokens_per_s
    shape = find_llama("Llama 2 7B")
    config = replace(PRESETS["llama2-7b-shape"], context_length=8192)
    assert shape.num_layers == config.num_layers
    assert 0.63 < roofline("A100 80GB", config, 1).mfu < 1  # YaFSDP's best row: 63 %


def test_measured_rates_replace_the_peaks_of_products_only():
    h100 = find_chip("H100 SXM")
    assert flops_rate(h100, "bf16", measured=True) == 794.5e12
    assert flops_rate(h100, "fp8", measured=True) == 1402.6e12
    assert flops_rate(h100, "fp32", measured=True) == pytest.approx(67e12 * 794.5 / 989)
    assert flops_rate(h100, VECTOR, measured=True) == 67e12
    slower = roofline(h100, GPT2, 8, measured=True)
    peak = roofline(h100, GPT2, 8)
    assert seconds_of(slower, products=False) == seconds_of(peak, products=False)
    assert seconds_of(slower, products=True) > 1.2 * seconds_of(peak, products=True)
    assert slower.mfu < peak.mfu
    with pytest.raises(ValueError, match="no measured product of RTX 4090: use its peak"):
        roofline("RTX 4090", GPT2, 8, measured=True)


def test_rates_that_the_table_lacks_are_refused_and_never_guessed():
    cases = (
        ("Sohu", "bf16", "no memory bandwidth for Sohu: it has no roofline"),
        ("B300", "bf16", "no memory bandwidth for B300"),
        ("A100 80GB", "fp8", "no fp8 rate for A100 80GB; it has fp32, tf32, fp16, bf16"),
        ("V100 32GB", "tf32", "no tf32 rate for V100 32GB"),
        ("Maia 100", "fp32", "no fp32 rate for Maia 100; it has bf16"),
        ("TPU v5e", "tf32", "no tf32 rate for TPU v5e"),
        ("H100 SXM", "int8", "no precision 'int8'; choose one of fp32"),
        ("H100", "bf16", "no chip 'H100'; the known ones are"),
    )
    for chip, precision, words in cases:
        with pytest.raises(ValueError, match=words):
            roofline(chip, GPT2, 8, precision)
    with pytest.raises(ValueError, match="at least 1 sequence"):
        roofline("H100 SXM", GPT2, 0)


def test_sixteen_bits_are_fp16_where_a_chip_has_only_that():
    assert flops_rate(find_chip("V100 32GB"), "bf16") == 125e12
    assert flops_rate(find_chip("TPU v5e"), VECTOR) == math.inf
    assert {chip.name for chip in roofline_chips()} == {
        chip.name for chip in load_chips() if chip.name not in ("Sohu", "B300")
    }
