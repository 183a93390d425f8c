"""FLOPs against utils.costs, bytes against torch's dispatcher and by hand."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.helpers import batch_for
from tests.traced_bytes import trace_step
from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters, flops_by_part, training_flops
from utils.model import build_gpt, next_token_loss
from utils.roofline_precisions import PRECISIONS, Precision, find_precision
from utils.roofline_work import VECTOR, step_operations
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CUDA_RULES

# N = 3 x 16 = 48; no other size is 48, so that a product's shape tells which layer it is.
CONFIG = GPTConfig(3, 4, 32, 16, 40, bias=False)
BATCH = 3
NOT_TRACED = ("embedding", "optimizer")  # counted by hand below


def bytes_by_part(config, batch_size, precision):
    total = Counter()
    for each in step_operations(config, batch_size, precision):
        if each.part not in NOT_TRACED:
            total[each.part, each.phase] += each.num_bytes
    return total


def bytes_of(part, **choices):
    work = step_operations(choices.pop("config", CONFIG), BATCH, **choices)
    return sum(each.num_bytes for each in work if each.part == part)


def autocast_loss(model, *batch):
    with ManualAutocast(CUDA_RULES):
        return next_token_loss(model, *batch)


@pytest.mark.parametrize("model", ["laptop", "gpt2-124m", "llama2-70b-shape"])
@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_have_the_flops_of_the_costs(model, attention, precision):
    config = replace(PRESETS[model], attention=attention)
    work = step_operations(config, 2, precision, num_tokens=100)
    products = [each for each in work if each.format != VECTOR]
    assert sum(each.flops for each in products) == training_flops(config, 2, 100)
    by_part = flops_by_part(config, 100)
    for part, per_token in by_part.items():
        assert sum(e.flops for e in products if e.part == part) == 200 * per_token, part
    assert {each.part for each in products} == set(by_part)


@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize(
    ("precision", "dtype", "loss_of"),
    [
        ("fp32", torch.float32, next_token_loss),
        ("tf32", torch.float32, next_token_loss),
        ("bf16", torch.bfloat16, next_token_loss),
        ("autocast", torch.float32, autocast_loss),
    ],
)
def test_bytes_are_those_that_torch_reads_and_writes(attention, precision, dtype, loss_of):
    """Every operation of forward and backward, by part and phase, to the byte."""
    config = replace(CONFIG, attention=attention)
    model = build_gpt(config).to(dtype)
    traced = trace_step(model, config, BATCH, loss_of, batch_for(config, BATCH))
    assert traced == bytes_by_part(config, BATCH, precision)


def test_a_linear_layer_by_hand():
    """64 tokens, 8 -> 16: each of three products reads two of x, W, y and writes the third."""
    config = GPTConfig(1, 1, 8, 64, 4, ff_dim=16, bias=False)
    x, weight, y = 64 * 8, 8 * 16, 64 * 16
    for precision, width in (("fp32", 4), ("bf16", 2)):
        work = [e for e in step_operations(config, 1, precision) if e.part == "feed-forward"]
        assert [each.num_bytes for each in work] == 6 * [width * (x + weight + y)]
        assert [each.flops for each in work] == 6 * [2 * 64 * 8 * 16]
    fp8 = [e for e in step_operations(config, 1, "fp8") if e.part == "feed-forward"]
    assert [each.num_bytes for each in fp8[:3]] == [
        x + weight + 2 * y, y + weight + 2 * x, x + y + 2 * weight,
    ]  # fmt: skip


def test_fp8_only_in_the_linear_layers_and_its_casts_by_hand():
    work = step_operations(CONFIG, BATCH, "fp8")
    formats = {part: {e.format for e in work if e.part == part} for part in {e.part for e in work}}
    assert formats["feed-forward"] == formats["attention projections"] == {"fp8"}
    assert formats["attention scores"] == formats["output layer"] == {"bf16"}
    tokens, width, wide = 48, 32, 128
    weights = width * 3 * width + width * width + 2 * width * wide
    inputs = tokens * (width + width + width + wide)  # of the layers q k v, output, widen, narrow
    outputs = tokens * (3 * width + width + wide + width)
    assert bytes_of("casts", precision="fp8") == 3 * (2 + 2 + 1) * (inputs + weights + outputs)
    rest = [e for e in work if e.part not in ("casts", "attention projections", "feed-forward")]
    plain = set(step_operations(CONFIG, BATCH, "bf16"))
    assert set(rest) <= plain


def test_nothing_is_cast_where_all_values_have_one_width():
    for name in ("fp32", "tf32", "bf16"):
        assert bytes_of("casts", precision=name) == 0


def test_the_optimizer_moves_the_same_bytes_in_every_precision():
    """fp32: weight, gradient, two averages read, three written: 7 x 4. bf16: 24 + 2 + 2."""
    parameters = count_parameters(CONFIG).total
    for name in PRECISIONS:
        assert bytes_of("optimizer", precision=name) == 28 * parameters


def test_the_embedding_by_hand():
    tokens, width, vocabulary, context = 48, 32, 40, 16
    values = tokens * width
    forward = 2 * values + 2 * values + context * width
    table = vocabulary * width
    backward = values + context * width + table + 3 * values
    assert bytes_of("embedding", precision="fp32") == 4 * (forward + backward)
    tied = replace(CONFIG, tied_embeddings=True)
    assert bytes_of("embedding", precision="bf16", config=tied) == 2 * (
        forward + backward + 3 * table
    )


def test_bf16_halves_every_byte_but_the_optimizers():
    for before, after in zip(
        step_operations(CONFIG, BATCH, "fp32"), step_operations(CONFIG, BATCH, "bf16"), strict=True
    ):
        assert before.flops == after.flops
        ratio = 1 if before.part == "optimizer" else 2
        assert before.num_bytes == ratio * after.num_bytes


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no precision 'int8'; choose one of fp32, tf32, autocast"):
        step_operations(CONFIG, 1, "int8")
    for batch_size, num_tokens in ((0, 16), (1, -1)):
        with pytest.raises(ValueError, match="at least 1 sequence of at least 1 token, not"):
            step_operations(CONFIG, batch_size, num_tokens=num_tokens)
    assert isinstance(find_precision("fp8"), Precision)
