"""Steps of FSDP and YaFSDP as tasks: times worked out by hand, and bad input refused."""

import pytest

from utils.simulate.fully_sharded import FullySharded, fully_sharded
from utils.simulate.hazards import most_gathered
from utils.simulate.layers import Layer
from utils.simulate.llama import checkpointed
from utils.simulate.timeline import COMMUNICATION, simulate
from utils.simulate.two_buffers import two_buffers

# Four equal layers of one value: forward 1, backward 2 seconds.
LAYERS = tuple(Layer(name, 1.0, 2.0, (1,)) for name in "abcd")
ONE = (1, 1)  # bytes of a weight and of a gradient


def per_byte(num_bytes):
    return 1.0 * num_bytes


def twice(num_bytes):
    return 2.0 * num_bytes


def free(num_bytes):
    return 0.0


def starts(timeline, *what):
    return [span.start_s for span in timeline.spans if span.task.name.startswith(what)]


def fsdp(layers, send_s=per_byte, scatter_s=None, **how):
    tasks = fully_sharded(layers, send_s, scatter_s or send_s, *ONE, FullySharded(**how))
    return simulate(tasks)


def test_fsdp_with_prefetch_by_hand():
    """Gathers 1 s, scatters 1 s: only the first gathers of forward and backward are waited for."""
    timeline = fsdp(LAYERS)
    assert starts(timeline, "gather forward") == [0, 1, 2, 3]
    assert starts(timeline, "forward") == [1, 2, 3, 4]  # ends at 5
    assert starts(timeline, "gather backward") == [5, 6, 9, 11]  # d, c, then behind scatters
    assert starts(timeline, "backward") == [6, 8, 10, 12]
    assert starts(timeline, "reduce-scatter") == [8, 10, 12, 14]
    assert (timeline.total_s, timeline.compute_s) == (15, 12)
    assert timeline.gaps() == [(0, 1), (5, 6), (14, 15)]


def test_fsdp_without_prefetch_waits_for_every_message():
    timeline = fsdp(LAYERS, forward_prefetch=0, backward_prefetch=0)
    assert starts(timeline, "forward") == [1, 3, 5, 7]
    # The scatter of a layer stands before the next layer's gather.
    assert starts(timeline, "backward") == [9, 13, 17, 21]
    assert timeline.total_s == 24 == timeline.compute_s + timeline.busy_s(COMMUNICATION)


def test_a_limit_of_one_layer_undoes_the_prefetch():
    assert fsdp(LAYERS, max_gathered=1).total_s == 24
    deep = fsdp(LAYERS, forward_prefetch=2, backward_prefetch=2, max_gathered=3)
    assert most_gathered(deep) <= 3 and deep.total_s <= 15


def test_slow_gathers_show_how_far_ahead_one_may_ask():
    """Gathers 2 s, forward 1 s: messages never pause, whatever the prefetch beyond 1."""
    timeline = fsdp(LAYERS, twice, per_byte)
    assert starts(timeline, "gather forward") == [0, 2, 4, 6]
    assert starts(timeline, "forward") == [2, 4, 6, 8]


def test_keeping_the_weights_saves_the_second_gather():
    timeline = fsdp(LAYERS, reshard_after_forward=False)
    assert starts(timeline, "gather backward") == []
    assert starts(timeline, "backward") == [5, 7, 9, 11]
    assert timeline.total_s == 14 and most_gathered(timeline) == 4


def test_each_cost_stands_where_its_name_says():
    held = fsdp(LAYERS, before_gather_s=0.5)
    assert starts(held, "allocate forward") == [0, 1.5, 3, 4.5]
    assert starts(held, "forward") == [1.5, 3, 4.5, 6]
    freed = fsdp(LAYERS, free_s=0.25)
    assert starts(freed, "free forward") == [2, 3.25, 4.5, 5.75]
    assert starts(freed, "gather backward")[0] == 6.0  # the last layer is free
    at_once = fsdp(LAYERS, per_byte, free, free_s=0.25)  # b may come when d is free, not before
    assert at_once.span("gather backward b").start_s == at_once.span("free backward d").end_s
    kept = fsdp(LAYERS, free_s=0.25, reshard_after_forward=False)
    assert starts(kept, "free forward") == [] and len(starts(kept, "free backward")) == 4
    copies = fsdp(LAYERS, gradient_copies_s=lambda values: 0.5 * values)
    assert starts(copies, "backward copies") == [8, 10.5, 13, 15.5]
    assert starts(copies, "reduce-scatter") == [8.5, 11, 13.5, 16]
    assert copies.total_s == 17 and copies.compute_s == 14


def test_copies_wait_for_the_gather_under_way():
    slow = fsdp(LAYERS, lambda _: 5.0, per_byte, gradient_copies_s=lambda _: 0.5)
    for name, other in (("d", "c"), ("c", "b"), ("b", "a")):
        end_s = slow.span(f"gather backward {other}").end_s
        assert slow.span(f"backward copies {name}").start_s == end_s


def test_two_buffers_by_hand():
    """Gathers 1 s: layer c goes where a was; c and d are still there when backward begins."""
    timeline = simulate(two_buffers(LAYERS, per_byte, per_byte, *ONE))
    assert starts(timeline, "gather forward") == [0, 1, 2, 3]
    assert starts(timeline, "forward") == [1, 2, 3, 4]
    assert starts(timeline, "backward") == [5, 7, 9, 11]
    assert starts(timeline, "reduce-scatter") == [7, 9, 11, 13]
    assert starts(timeline, "gather backward") == [8, 10]  # b after d, a after c
    assert (timeline.total_s, timeline.exposed_s) == (14, 2)


def test_a_gather_waits_for_the_buffers_last_user():
    """Forward takes 1 s and gathers none: c may come when a is done, d when b is."""
    timeline = simulate(two_buffers(LAYERS, free, per_byte, *ONE))
    assert starts(timeline, "gather forward") == [0, 0, 1, 2]
    single = simulate(two_buffers(LAYERS, free, per_byte, *ONE, weight_buffers=1))
    assert starts(single, "gather forward") == [0, 1, 2, 3]


def test_a_backward_waits_for_its_gradient_buffer():
    """Scatters of 5 s: b's gradients may come when d's are gone, at 11."""
    timeline = simulate(two_buffers(LAYERS, free, lambda _: 5.0, *ONE))
    assert starts(timeline, "backward") == [4, 6, 11, 16]  # d, c, b, a
    assert starts(timeline, "reduce-scatter") == [6, 11, 16, 21]
    third = simulate(two_buffers(LAYERS, free, lambda _: 5.0, *ONE, gradient_buffers=3))
    # b no longer waits for a buffer, but its weights stand behind d's scatter in the one stream.
    assert starts(third, "backward") == starts(timeline, "backward")
    kept = {"zero_stage": 2, "gradient_buffers": 3}  # no gathers in backward: now it helps
    third = simulate(two_buffers(LAYERS, free, lambda _: 5.0, *ONE, **kept))
    assert starts(third, "backward") == [4, 6, 8, 11]


def test_stage_2_gathers_once_and_never_waits_for_weights():
    timeline = simulate(two_buffers(LAYERS, per_byte, per_byte, *ONE, zero_stage=2))
    assert starts(timeline, "gather backward") == []
    assert timeline.busy_s(COMMUNICATION) == 8
    assert starts(simulate(two_buffers(LAYERS, free, per_byte, *ONE, zero_stage=2)), "gather") == [
        0.0
    ] * 4


def test_norms_travel_apart_once_a_step():
    layers = [Layer(name, 1.0, 2.0, (5, 1)) for name in "abc"]
    timeline = simulate(two_buffers(layers, per_byte, twice, 2, 4, norm_values=(0, 1, 1)))
    assert timeline.span("gather norms").task.seconds == 2 * 2
    assert timeline.span("reduce norms").task.seconds == 2 * 4 * 2
    assert timeline.span("gather forward b").task.seconds == 5 * 2
    assert timeline.span("gather forward a").task.seconds == 6 * 2
    assert timeline.span("reduce norms").start_s >= timeline.span("reduce-scatter a").end_s
    names = [span.task.name for span in timeline.spans if "norms" in span.task.name]
    assert names == ["gather norms", "reduce norms"]


def test_a_cast_holds_its_message_up_and_nothing_else():
    plain = simulate(two_buffers(LAYERS, free, per_byte, *ONE))
    cast = simulate(two_buffers(LAYERS, free, per_byte, *ONE, cast_s=lambda values: 0.5))
    assert starts(cast, "backward") == starts(plain, "backward")
    assert starts(cast, "reduce-scatter") == [s + 0.5 for s in starts(plain, "reduce-scatter")]


def test_recomputed_layers_take_forward_again_in_backward():
    again = checkpointed(LAYERS, 2)
    assert [layer.backward_s for layer in again] == [3.0, 3.0, 2.0, 2.0]
    assert fsdp(again, free).total_s == 4 + 8 + 2
    assert checkpointed(LAYERS, 0) == LAYERS


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FullySharded(forward_prefetch=-1), "A prefetch is 0 layers"),
        (lambda: FullySharded(max_gathered=0), "max_gathered is 0"),
        (lambda: FullySharded(free_s=-1.0), "0 seconds or more"),
        (lambda: fully_sharded([], free, free), "at least one layer"),
        (lambda: fully_sharded(LAYERS, free, free, 0), "at least 1 byte, not 0"),
        (lambda: simulate(fully_sharded(LAYERS, lambda _: -1.0, free)), "takes -1.0 seconds"),
        (lambda: two_buffers([], free, free), "at least one layer"),
        (lambda: two_buffers(LAYERS, free, free, zero_stage=1), "stage 2 or 3, not 1"),
        (lambda: two_buffers(LAYERS, free, free, weight_buffers=0), "at least 1 buffer"),
        (lambda: two_buffers(LAYERS, free, free, norm_values=(0,)), "do not fit 4 layers"),
        (lambda: two_buffers(LAYERS, free, free, norm_values=(0, 0, 0, 2)), "2 of them cannot be"),
        (lambda: checkpointed(LAYERS, 5), "Of 4 layers, 5 cannot be"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
