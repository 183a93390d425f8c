"""Laws of FSDP's and YaFSDP's steps on random models: what may never cost time, and traffic."""

import random
from itertools import pairwise

import pytest

from utils.simulate.fully_sharded import FullySharded, fully_sharded
from utils.simulate.hazards import most_gathered
from utils.simulate.layers import Layer
from utils.simulate.timeline import COMMUNICATION, simulate
from utils.simulate.two_buffers import two_buffers

LAYERS = tuple(Layer(name, 1.0, 2.0, (1,)) for name in "abcd")
ONE = (1, 1)  # bytes of a weight and of a gradient
SEEDS = range(300)


def per_byte(num_bytes):
    return 1.0 * num_bytes


def free(num_bytes):
    return 0.0


def random_model(draw):
    return [
        Layer(f"layer {i}", draw.random(), 2 * draw.random(), (draw.randint(1, 100),))
        for i in range(draw.randint(1, 10))
    ]


def fsdp(layers, send_s=per_byte, **how):
    return simulate(fully_sharded(layers, send_s, send_s, *ONE, FullySharded(**how)))


def test_links_without_cost_leave_compute_alone_on_every_schedule():
    for seed in SEEDS:
        layers = random_model(random.Random(seed))
        compute_s = sum(layer.forward_s + layer.backward_s for layer in layers)
        for timeline in (fsdp(layers, free), simulate(two_buffers(layers, free, free, *ONE))):
            assert timeline.total_s == pytest.approx(compute_s) and timeline.exposed_s < 1e-9


def test_asking_earlier_more_room_and_more_buffers_never_cost_time():
    for seed in SEEDS:
        draw = random.Random(seed)
        layers, rate = random_model(draw), 10 ** draw.uniform(-4, 0)

        def send_s(num_bytes, rate=rate):
            return rate * num_bytes

        prefetches = [
            fsdp(layers, send_s, forward_prefetch=k, backward_prefetch=k, max_gathered=99)
            for k in range(4)
        ]
        deep = {"forward_prefetch": 3, "backward_prefetch": 3}
        limits = [fsdp(layers, send_s, max_gathered=m, **deep) for m in (1, 2, 3, 4)]
        buffers = [
            simulate(two_buffers(layers, send_s, send_s, *ONE, weight_buffers=n,
                                 gradient_buffers=n))
            for n in (1, 2, 3, 4)
        ]  # fmt: skip
        stage_2 = simulate(two_buffers(layers, send_s, send_s, *ONE, zero_stage=2))
        kept = fsdp(layers, send_s, reshard_after_forward=False)
        for slower, faster in (
            *pairwise(prefetches),
            *pairwise(limits),
            *pairwise(buffers),
            (buffers[1], stage_2),
            (fsdp(layers, send_s), kept),
            (fsdp(layers, send_s), buffers[1]),  # same order, two gathers fewer
        ):
            assert faster.total_s <= slower.total_s * (1 + 1e-9), seed
        for timeline in (*prefetches, *limits, *buffers, stage_2, kept):
            busiest = max(timeline.compute_s, timeline.busy_s(COMMUNICATION))
            assert busiest * (1 - 1e-9) <= timeline.total_s
            assert timeline.total_s <= sum(s.task.seconds for s in timeline.spans) * (1 + 1e-9)


def test_traffic_is_three_messages_a_layer_or_two():
    for seed in range(30):
        layers = random_model(random.Random(seed))
        values = sum(layer.num_values for layer in layers)
        assert fsdp(layers).busy_s(COMMUNICATION) == 3 * values
        last_two = sum(layer.num_values for layer in layers[-2:])
        ours = simulate(two_buffers(layers, per_byte, per_byte, *ONE))
        assert ours.busy_s(COMMUNICATION) == 3 * values - last_two
        stage_2 = simulate(two_buffers(layers, per_byte, per_byte, *ONE, zero_stage=2))
        assert stage_2.busy_s(COMMUNICATION) == 2 * values


def test_gathered_layers_stay_within_the_limit():
    for seed in SEEDS:
        draw = random.Random(seed)
        layers, rate = random_model(draw), 10 ** draw.uniform(-4, 0)
        for limit in (1, 2, 3):
            timeline = fsdp(
                layers, lambda num_bytes, rate=rate: rate * num_bytes,
                forward_prefetch=draw.randint(0, 3), backward_prefetch=draw.randint(0, 3),
                max_gathered=limit,
            )  # fmt: skip
            assert most_gathered(timeline) <= limit
    kept = fsdp(LAYERS, reshard_after_forward=False)
    assert most_gathered(kept) == len(LAYERS)
