"""Counts by hand, and fp16's shares against torch's own cast, edges included."""

import math
import re
from collections import Counter

import pytest
import torch
from torch import nn

from tests.helpers import batch_for
from utils.config import GPTConfig
from utils.gradient_histogram import (
    ExponentCounts,
    activation_exponents,
    choose_scale,
    count_exponents,
    draw_gradient_histogram,
    fp16_shares,
    gradient_exponents,
    layer_of,
    merge,
)
from utils.measured import MARK
from utils.model import build_gpt, next_token_loss
from utils.plots import new_figure, png_of

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])]
TINY = GPTConfig(2, 2, 32, 16, 64)
FP16_EDGES = [2.0**-25, 2.0**-24, 2.0**-14, 65504.0, 65520.0, 65536.0]


def values_of_all_sizes():
    """Both signs, exponents -40 to 30, and fp16's edges with their fp32 neighbours."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(50_000, generator=generator)
    spread *= 2.0 ** torch.randint(-40, 30, spread.shape, generator=generator)
    edges = torch.tensor(FP16_EDGES)
    zero, far = torch.zeros(len(edges)), torch.full((len(edges),), math.inf)
    near = torch.cat([edges, torch.nextafter(edges, zero), torch.nextafter(edges, far)])
    return torch.cat([spread, near, -near, torch.zeros(7)])


def shares_by_casting(values, scale):
    """(zero, subnormal, normal, overflow) of the nonzero values, as torch's own cast has them."""
    scaled = values[values != 0] * scale
    cast = scaled.half()
    zero, overflow = cast == 0, cast.isinf()
    subnormal = ~zero & (scaled.abs() < 2.0**-14)
    kinds = (zero, subnormal, ~zero & ~subnormal & ~overflow, overflow)
    return tuple(int(kind.sum()) / len(scaled) for kind in kinds)


def test_counts_by_hand():
    values = [0.0, -0.0, 1.0, -1.5, 1.999, 2.0, 0.75, -(2.0**-149), math.inf, math.nan]
    counts = count_exponents(torch.tensor(values))
    assert counts.counts == Counter({0: 3, 1: 1, -1: 1, -149: 1})
    assert counts.powers == Counter({0: 1, 1: 1, -149: 1})
    assert counts.tops == Counter()
    assert (counts.num_zeros, counts.num_not_finite, counts.num_nonzero) == (2, 2, 6)
    assert count_exponents(torch.tensor([65519.9, 65520.0])).tops == Counter({15: 1})
    assert count_exponents(torch.empty(0)) == ExponentCounts()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_format_is_counted_by_its_own_values(dtype):
    values = torch.tensor([2.0**-24, -3.0, 384.0], dtype=dtype)
    assert count_exponents(values).counts == Counter({-24: 1, 1: 1, 8: 1})
    if dtype == torch.float64:  # far outside of fp32
        assert count_exponents(2.0**600 * values).counts == Counter({576: 1, 601: 1, 608: 1})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("power", [-16, -1, 0, 1, 5, 16, 24])
def test_shares_are_exactly_those_of_torchs_cast(power, device):
    values, scale = values_of_all_sizes(), 2.0**power
    shifted = torch.cat([values, values / scale])  # so that each scale meets the edges
    shares = fp16_shares(count_exponents(shifted.to(device)), scale)
    expected = shares_by_casting(shifted, scale)
    assert (shares.zero, shares.subnormal, shares.normal, shares.overflow) == expected
    assert min(expected) > 0.01


def test_the_edges_of_fp16_one_by_one():
    def lands_in(value):
        return [name for name, share in vars(fp16_shares(count_exponents(value))).items() if share]

    above_tie = torch.nextafter(torch.tensor(2.0**-25), torch.tensor(1.0))
    below_inf = torch.nextafter(torch.tensor(65520.0), torch.tensor(0.0))
    assert lands_in(torch.tensor(2.0**-25)) == ["zero"] and lands_in(above_tie) == ["subnormal"]
    assert lands_in(torch.tensor(2.0**-14)) == ["normal"]
    assert lands_in(below_inf) == ["normal"] and lands_in(torch.tensor(65520.0)) == ["overflow"]


@pytest.mark.parametrize("largest", [1.0, 0.9, 65519.0, 65520.0, 3e-7, 1.9996, 1.9998, 7e30])
def test_the_chosen_scale_overflows_nothing_and_twice_it_does(largest):
    values = torch.tensor([largest, -largest / 3, 1e-30])
    scale = choose_scale(count_exponents(values))
    assert math.frexp(scale)[0] == 0.5
    assert (values.double() * scale).half().isfinite().all()
    assert (values.double() * scale * 2).half().isinf().any()


def test_no_scale_for_gradients_that_are_broken_or_zero():
    with pytest.raises(ValueError, match="2 gradients are inf or NaN before any scaling"):
        choose_scale(count_exponents(torch.tensor([1.0, math.nan, -math.inf])))
    with pytest.raises(ValueError, match="All gradients are 0"):
        choose_scale(count_exponents(torch.zeros(3)))
    for scale in (1000.0, 0.0, -2.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="must be a power of two"):
            fp16_shares(ExponentCounts(), scale)
    assert set(vars(fp16_shares(ExponentCounts())).values()) == {0.0}


def test_the_weights_gradients_of_the_gpt_by_layer():
    model = build_gpt(TINY)
    with pytest.raises(ValueError, match=r"call loss.backward\(\)"):
        gradient_exponents(model)
    next_token_loss(model, *batch_for(TINY, 2)).backward()
    layers = gradient_exponents(model)
    assert list(layers) == [
        "token_embedding", "position_embedding", "blocks.0", "blocks.1", "final_norm", "output",
    ]  # fmt: skip
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert merge(layers.values()) == count_exponents(gradients)
    block = torch.cat([p.grad.flatten() for p in model.blocks[1].parameters()])
    assert layers["blocks.1"] == count_exponents(block)
    assert [layer_of(name) for name in ("weight", "a.b.0.c", "h.11.x")] == ["weight", "a", "h.11"]


def test_activations_gradients_are_those_that_autograd_computes():
    model, batch = build_gpt(TINY), batch_for(TINY, 2)
    layers = activation_exponents(model, lambda: next_token_loss(model, *batch))
    assert set(layers) == {"token_embedding", "blocks.0", "blocks.1", "final_norm", "output"}
    weights = [p.grad.clone() for p in model.parameters()]
    logits = model(batch[0]).detach().requires_grad_()
    nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten()).backward()
    assert layers["output"] == count_exponents(logits.grad)
    num_tokens, widths = batch[0].numel(), 32 + 3 * 32 + 32 + 32 + 4 * 32 + 32
    counted = layers["blocks.0"]
    assert counted.num_nonzero + counted.num_zeros == num_tokens * widths
    next_token_loss(model, *batch).backward()  # the gradients add up, as ever
    pairs = zip(model.parameters(), weights, strict=True)
    assert all(torch.equal(p.grad, 2 * g) for p, g in pairs)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_power_of_two_on_the_loss_only_shifts_the_counts():
    """What makes counting once enough for every scale."""
    found = []
    for scale in (1.0, 2.0**12):
        model = build_gpt(TINY)
        (next_token_loss(model, *batch_for(TINY, 2)) * scale).backward()
        found.append(merge(gradient_exponents(model).values()))
    assert found[1].counts == Counter({e + 12: n for e, n in found[0].counts.items()})
    assert fp16_shares(found[1]) == fp16_shares(found[0], 2.0**12)


def test_the_picture_shows_the_window_and_says_the_shares():
    counts = count_exponents(torch.tensor([2.0**-26, 2.0**-20, 1.0, 1.5, 0.0]))
    figure = new_figure()
    reading = draw_gradient_histogram(figure, counts, 2.0**16)
    (axes,) = figure.axes
    before, after = [patch.get_data() for patch in axes.patches if hasattr(patch, "get_data")]
    assert dict(zip(before.edges, before.values, strict=False))[0] == 50
    assert {e: v for e, v in zip(after.edges, after.values, strict=False) if v} == {
        -10: 25, -4: 25, 16: 50,
    }  # fmt: skip
    words = [text.get_text() for text in axes.texts]
    assert words == ["becomes 0", "fewer bits", "fp16, all bits", "inf"]
    assert reading.replace(f"{MARK} ", "").replace(f" {MARK}", "") == (
        "Of the nonzero gradients, fp16 without a scale turns 25.00 % into 0, keeps 25.00 % with "
        "fewer bits, overflows 0 %; times 2¹⁶, it turns 0 % into 0, keeps 0 % with fewer bits, "
        "overflows 50.00 %."
    )
    assert png_of(figure).startswith(b"\x89PNG")
    other = draw_gradient_histogram(new_figure(), counts, 2.0**15)  # chosen from another text
    compared = [re.sub(f"{MARK}.*?{MARK}", "", text) for text in (reading, other)]
    assert compared[0] == compared[1] and reading != other


def test_a_picture_without_a_scale_has_one_histogram_and_survives_any_counts():
    broken = count_exponents(torch.tensor([math.nan, 1e-44, 3e38]))
    for counts in (ExponentCounts(), broken):
        figure = new_figure()
        reading = draw_gradient_histogram(figure, counts)
        png_of(figure)
        assert "times" not in reading and reading.endswith(".")
        assert len([p for p in figure.axes[0].patches if hasattr(p, "get_data")]) == 1
    assert f"{MARK} 1 {MARK} are inf or NaN already" in reading
    rare = ExponentCounts(Counter({0: 10**6, -30: 1}))
    assert "turns less than 0.01 % into 0" in draw_gradient_histogram(new_figure(), rare)
