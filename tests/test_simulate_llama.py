"""Llama's shapes as layers: parameters as published, FLOPs as counted, recomputation."""

import pytest

from utils.costs import forward_flops
from utils.simulate.llama import find_llama, llama_layers, load_llama_shapes

PARAMETERS = {  # by hand: 2 V D + L (2 D^2 + 2 D D_kv + 3 D F + 2 D) + D
    "Llama 2 7B": 6_738_415_616,
    "Llama 2 13B": 13_015_864_320,
    "Llama 2 34B": 33_743_970_304,
    "Llama 2 70B": 68_976_648_192,
    "Llama 3 8B": 8_030_261_248,
    "Llama 3 70B": 70_553_706_496,
    "Llama 3.1 405B": 405_853_388_800,
}


def test_every_shape_has_a_source_and_its_published_parameters():
    shapes = load_llama_shapes()
    assert {shape.model: shape.num_parameters for shape in shapes} == PARAMETERS
    for shape in shapes:
        assert shape.source.startswith("Lightning-AI/litgpt") and shape.status == "R"
        width, narrow = shape.model_dim, shape.model_dim // shape.num_heads * shape.num_kv_heads
        block = 2 * width**2 + 2 * width * narrow + 3 * width * shape.ff_dim + 2 * width
        table = shape.vocab_size * width
        assert shape.num_parameters == 2 * table + shape.num_layers * block + width


@pytest.mark.parametrize("model", PARAMETERS)
def test_layers_hold_all_values_and_all_flops(model):
    shape = find_llama(model)
    layers = llama_layers(shape, 2048, 1e12)
    assert len(layers) == shape.num_layers + 2 == len(shape.norm_values)
    assert sum(layer.num_values for layer in layers) == shape.num_parameters
    counted = forward_flops(shape.config(2048), 1, 2048) / 1e12
    assert sum(layer.forward_s for layer in layers) == pytest.approx(counted)
    assert all(layer.backward_s == 2 * layer.forward_s for layer in layers)
    assert sum(shape.norm_values) == (2 * shape.num_layers + 1) * shape.model_dim


def test_flops_by_hand():
    """One block of Llama 2 7B at 2,048 tokens, in products per token: 4 D^2 + 3 D F + 2 T D."""
    layers = llama_layers(find_llama("Llama 2 7B"), 2048, 1.0)
    per_token = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 2048 * 4096
    assert layers[1].forward_s == 2 * 2048 * per_token
    assert (layers[0].forward_s, layers[-1].forward_s) == (0, 2 * 2048 * 4096 * 32000)


def test_checkpointed_blocks_run_forward_twice():
    plain = llama_layers(find_llama("Llama 2 70B"), 4096, 1e12)
    some = llama_layers(find_llama("Llama 2 70B"), 4096, 1e12, 50)
    assert all(a.backward_s == 3 * a.forward_s for a in some[1:51])
    assert some[51:] == plain[51:] and some[0] == plain[0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_llama("Llama 9"), "no shape 'Llama 9'; the known ones are: Llama 2 7B"),
        (lambda: llama_layers(find_llama("Llama 2 7B"), 0, 1.0), "at least 1 sequence of 1 token"),
        (lambda: llama_layers(find_llama("Llama 2 7B"), 1, 0.0), "more than 0 FLOPs"),
        (lambda: llama_layers(find_llama("Llama 2 7B"), 1, 1.0, 33), "Of 32 layers, 33"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
