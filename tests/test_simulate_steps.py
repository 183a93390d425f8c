"""A GPT's layers and the steps built from them: exact FLOPs, and times worked out by hand."""

import math
import random

import pytest

from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters, forward_flops, tensor_sizes
from utils.model import build_gpt
from utils.simulate.data_parallel import after_backward, gradient_bytes, overlapped
from utils.simulate.layers import Layer, gpt_layers, layer_flops, layer_tensors
from utils.simulate.links import Link
from utils.simulate.sharded_optimizer import sharded_optimizer
from utils.simulate.timeline import COMMUNICATION, simulate

# Three layers of one tensor each: 1, 2 and 4 values of one byte.
LAYERS = (Layer("a", 1.0, 2.0, (1,)), Layer("b", 2.0, 4.0, (2,)), Layer("c", 0.5, 1.0, (4,)))
COMPUTE_S = 3.5 + 7.0


def per_byte(num_bytes):
    return 2.0 * num_bytes


def starts(timeline):
    return [span.start_s for span in timeline.on(COMMUNICATION)]


@pytest.mark.parametrize("preset", PRESETS)
def test_layers_have_the_models_tensors_and_exact_flops(preset):
    config = PRESETS[preset]
    sizes = [size for layer in layer_tensors(config).values() for size in layer]
    assert sizes == tensor_sizes(config)
    assert sum(sizes) == count_parameters(config).total
    assert sum(layer_flops(config, 3, 17).values()) == forward_flops(config, 3, 17)
    layers = gpt_layers(config, 3, 1e12, 17)
    assert sum(layer.forward_s for layer in layers) == pytest.approx(
        forward_flops(config, 3, 17) / 1e12
    )
    assert all(layer.backward_s == 2 * layer.forward_s for layer in layers)


@pytest.mark.parametrize("variant", [{}, {"bias": False}, {"tied_embeddings": True}])
def test_tensors_come_in_the_order_of_the_model(variant):
    config = GPTConfig(num_layers=2, num_heads=2, model_dim=8, ff_dim=24, **variant)
    sizes = [size for layer in layer_tensors(config).values() for size in layer]
    assert sizes == [p.numel() for p in build_gpt(config, device="meta").parameters()]


def test_a_split_replica_gives_each_gpu_its_part():
    config = PRESETS["gpt2-124m"]
    whole, split = gpt_layers(config, 2, 1e12), gpt_layers(config, 2, 1e12, split_over=7)
    assert any(size % 7 for layer in whole for size in layer.tensor_sizes)
    for layer, part in zip(whole, split, strict=True):
        assert part.forward_s == pytest.approx(layer.forward_s / 7)
        assert part.tensor_sizes == tuple(math.ceil(size / 7) for size in layer.tensor_sizes)


def test_naive_is_compute_plus_communication_exactly():
    timeline = simulate(after_backward(LAYERS, per_byte, value_bytes=1))
    assert timeline.total_s == COMPUTE_S + 2.0 * 7
    assert starts(timeline) == [10.5, 12.5, 16.5]  # a, b, c: the model's order
    assert timeline.exposed_s == timeline.busy_s(COMMUNICATION) == 14.0


def test_overlapped_by_hand():
    """Backward ends c at 4.5, b at 8.5, a at 10.5; the messages take 8, 4 and 2 seconds."""
    timeline = simulate(
        overlapped(LAYERS, per_byte, value_bytes=1, first_bytes=1, bucket_bytes=1)
    )
    assert starts(timeline) == [4.5, 12.5, 16.5]
    assert timeline.total_s == 18.5 and timeline.exposed_s == 8.0
    free = simulate(
        overlapped(LAYERS, lambda size: 0.25 * size, 1, first_bytes=1, bucket_bytes=1)
    )
    assert starts(free) == [4.5, 8.5, 10.5] and free.exposed_s == 0.25


def test_a_bucket_waits_for_the_last_of_its_layers():
    timeline = simulate(
        overlapped(LAYERS, per_byte, value_bytes=1, first_bytes=5, bucket_bytes=100)
    )
    assert starts(timeline) == [8.5, 20.5]  # c and b together, then a
    one = simulate(overlapped(LAYERS, per_byte, 1, first_bytes=100))
    assert starts(one) == [10.5]  # one bucket overlaps nothing


def test_accumulation_sends_once_unless_told_otherwise():
    once = simulate(overlapped(LAYERS, per_byte, 1, 3, first_bytes=1, bucket_bytes=1))
    assert once.busy_s(COMMUNICATION) == 14.0
    assert once.total_s == 2 * COMPUTE_S + 18.5
    each = simulate(
        overlapped(LAYERS, per_byte, 1, 3, sync_each=True, first_bytes=1, bucket_bytes=1)
    )
    assert each.busy_s(COMMUNICATION) == 3 * 14.0
    assert each.total_s == 3 * 18.5  # the next forward waits for the gradients
    naive = simulate(after_backward(LAYERS, per_byte, 1, 3))
    assert naive.total_s == 3 * COMPUTE_S + 14.0


def test_a_sharded_optimizer_by_hand():
    """Weights of half the gradients' size come first, the first layer first."""
    tasks = sharded_optimizer(
        LAYERS, per_byte, per_byte, 2, 1, first_bytes=1, bucket_bytes=1
    )
    timeline = simulate(tasks)
    gathers = [timeline.span(f"all-gather {n}") for n in (2, 1, 0)]  # a, b, c
    assert [span.start_s for span in gathers] == [0.0, 2.0, 6.0]
    forward = [timeline.span(f"forward 0 {name}").start_s for name in "abc"]
    assert forward == [2.0, 6.0, 14.0]
    assert timeline.span("backward 0 c").end_s == 15.5
    assert timeline.span("reduce-scatter 0").start_s == 15.5
    assert timeline.total_s == 15.5 + 2 * 2.0 * 7


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 5])
def test_a_sharded_optimizer_does_every_micro_batch_once(micro_batches):
    tasks = sharded_optimizer(LAYERS, per_byte, per_byte, 2, 1, micro_batches)
    timeline = simulate(tasks)
    assert timeline.compute_s == micro_batches * COMPUTE_S
    assert timeline.busy_s(COMMUNICATION) == 2 * 14.0 + 14.0


def random_layers(draw):
    return [
        Layer(f"layer {i}", draw.random(), 2 * draw.random(),
              tuple(draw.randint(1, 10**6) for _ in range(draw.randint(0, 4))))
        for i in range(draw.randint(1, 12))
    ]  # fmt: skip


def test_steps_keep_their_order_on_random_models():
    """Free communication <= overlapped <= naive, and faster links never cost time."""
    for seed in range(200):
        draw = random.Random(seed)
        layers = random_layers(draw)
        link = Link(10 ** draw.uniform(-5, -1), 10 ** draw.uniform(5, 8))
        faster = Link(link.latency_s / 2, link.bytes_per_s * 3)
        caps = {"first_bytes": draw.randint(1, 10**6), "bucket_bytes": draw.randint(1, 10**7)}
        micro = draw.randint(1, 3)
        naive = simulate(after_backward(layers, link.seconds, 4, micro))
        good = simulate(overlapped(layers, link.seconds, 4, micro, **caps))
        better = simulate(overlapped(layers, faster.seconds, 4, micro, **caps))
        free = simulate(overlapped(layers, lambda _: 0.0, 4, micro, **caps))
        assert free.exposed_s == 0.0 and free.efficiency == 1.0
        assert free.total_s <= better.total_s <= good.total_s <= naive.total_s * (1 + 1e-12)
        assert good.compute_s == naive.compute_s
        sent = naive.busy_s(COMMUNICATION)
        assert naive.total_s == pytest.approx(naive.compute_s + sent)
        assert good.total_s >= max(good.compute_s, good.busy_s(COMMUNICATION)) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gpt_layers(PRESETS["laptop"], 0, 1e12), "at least 1 sequence"),
        (lambda: gpt_layers(PRESETS["laptop"], 1, 0.0), "more than 0 FLOPs"),
        (lambda: overlapped(LAYERS, per_byte, num_micro_batches=0), "at least 1 micro-batch"),
        (lambda: sharded_optimizer(LAYERS, per_byte, per_byte, num_micro_batches=0), "micro-batch"),
        (lambda: gradient_bytes(LAYERS, 0), "at least 1 byte"),
        (lambda: simulate(after_backward(LAYERS, lambda _: -1.0)), "takes -1.0 seconds"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
