"""The meter against bytes counted by hand, against torch's own records, and against itself."""

import gc

import pytest
import torch
from torch import nn

from tests.helpers import training_step
from utils.config import PRESETS, GPTConfig
from utils.memory import MemoryMeter, measure_memory
from utils.memory_report import CATEGORIES, MIB
from utils.model import build_gpt

FLOAT = 4
TINY = GPTConfig(2, 2, 32, 32, 64)


def test_two_tensors_and_their_sum_by_hand():
    def step():
        a = torch.zeros(1000)
        b = torch.zeros(500)
        del a
        c = torch.zeros(100)
        return b, c

    report = measure_memory(step)
    assert report.peak_bytes == 1500 * FLOAT
    assert report.total.tolist()[:4] == [4000, 6000, 2000, 2400]
    assert report.end_bytes == 0


def test_views_and_slices_cost_nothing():
    def step():
        base = torch.zeros(64, 64)
        return base.view(-1)[::2], base.t(), base[3:5]

    assert measure_memory(step).peak_bytes == 64 * 64 * FLOAT


def test_a_small_view_keeps_its_whole_storage_alive():
    with MemoryMeter() as meter:
        keeper = torch.zeros(1000)[:1]
        meter.mark("after")
    assert sum(meter.report().at_mark("after").values()) == 1000 * FLOAT
    del keeper


def test_in_place_operations_make_no_new_bytes():
    def step():
        x = torch.zeros(256)
        x.add_(1).mul_(2).relu_()
        x += 1
        return x

    assert measure_memory(step).peak_bytes == 256 * FLOAT


def test_a_freed_branch_leaves_the_total_but_not_the_peak():
    def step():
        x = torch.zeros(100)
        (x + 1, x + 2)
        return x * 3

    report = measure_memory(step)
    assert report.peak_bytes == 300 * FLOAT
    assert sorted(set(report.total.tolist())) == [0, 400, 800, 1200]


def test_a_linear_layer_by_hand():
    """Weights 8x4 + 8, input 16x4 saved, output 16x8, then gradients of the weights."""
    layer = nn.Linear(4, 8)
    x = torch.ones(16, 4)
    with MemoryMeter(layer) as meter:
        loss = layer(x).sum()
        meter.mark("forward")
        loss.backward()
        meter.mark("backward")
    report = meter.report()
    forward, backward = report.at_mark("forward"), report.at_mark("backward")
    assert forward["parameters"] == (8 * 4 + 8) * FLOAT
    assert forward["saved activations"] == 16 * 4 * FLOAT
    assert forward["gradients"] == 0
    assert backward["gradients"] == (8 * 4 + 8) * FLOAT
    # The input stays alive outside and was kept for backward: it keeps that name.
    assert backward["saved activations"] == 16 * 4 * FLOAT


def test_adam_holds_two_values_a_parameter_and_a_step_counter():
    model = build_gpt(TINY)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, TINY, batch_size=2)
    first, second = measure_memory(step, model, optimizer), measure_memory(step, model, optimizer)
    num_values = sum(p.numel() for p in model.parameters())
    num_tensors = len(list(model.parameters()))
    expected = 2 * num_values * FLOAT + num_tensors * FLOAT
    assert first.highest("optimizer state") == second.highest("optimizer state") == expected
    assert second.highest("parameters") == num_values * FLOAT
    assert second.highest("gradients") == num_values * FLOAT


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_the_same_step_gives_the_same_timeline_to_the_byte(attention):
    config = GPTConfig(2, 2, 32, 32, 64, attention=attention)
    model = build_gpt(config)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, config, batch_size=4)
    step()
    first, second = measure_memory(step, model, optimizer), measure_memory(step, model, optimizer)
    assert first.total.tolist() == second.total.tolist()
    assert first.operations == second.operations


def test_a_storage_that_shrinks_and_grows_is_followed():
    """Sharded training frees gathered weights by resizing their storage to nothing."""
    with MemoryMeter() as meter:
        x = torch.zeros(1000)
        x.untyped_storage().resize_(0)
        meter.mark("freed")
        x.untyped_storage().resize_(2000)
        meter.mark("half back")
    report = meter.report()
    assert sum(report.at_mark("freed").values()) == 0
    assert sum(report.at_mark("half back").values()) == 2000
    assert report.peak_bytes == 4000


def test_an_error_inside_leaves_everything_as_it_was():
    plain_resize = torch.UntypedStorage.resize_
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="on purpose"), MemoryMeter(model):
        raise RuntimeError("on purpose")
    assert torch.UntypedStorage.resize_ is plain_resize
    assert gc.isenabled()
    assert not model.weight._post_accumulate_grad_hooks


def test_labels_and_marks_refuse_unknown_names():
    with MemoryMeter() as meter:
        x = torch.zeros(10)
        with pytest.raises(ValueError, match="must be one of"):
            meter.label("weights", x)
        meter.label("gradients", x)
        meter.mark("here")
    assert meter.report().at_mark("here")["gradients"] == 40
    with pytest.raises(KeyError, match="the marks are"):
        meter.report().at_mark("there")


def test_the_peak_is_the_sum_of_its_categories_and_of_its_storages():
    model = build_gpt(PRESETS["laptop"])
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, PRESETS["laptop"], batch_size=2)
    report = measure_memory(step, model, optimizer)
    assert set(report.peak_by_category) == set(CATEGORIES)
    assert sum(report.peak_by_category.values()) == report.peak_bytes > 10 * MIB
    assert sum(block.num_bytes for block in report.live_at_peak()) == report.peak_bytes
    assert report.peak_bytes == report.total.max()


def test_an_empty_region_has_no_peak():
    report = measure_memory(lambda: None)
    assert (report.peak_bytes, report.start_bytes, report.end_bytes) == (0, 0, 0)


def test_meta_tensors_cost_nothing():
    assert measure_memory(lambda: torch.zeros(10**9, device="meta") + 1).peak_bytes == 0


def test_a_model_made_inside_can_be_named_later():
    with MemoryMeter() as meter:
        layer = nn.Linear(10, 10, bias=False)
        meter.watch(layer)
        layer(torch.ones(1, 10)).sum().backward()
    report = meter.report()
    assert report.highest("parameters") == 400
    assert report.highest("gradients") == 400


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_the_allocators_peak_stands_beside():
    config = GPTConfig(2, 4, 64, 64, 256)
    model = build_gpt(config).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, config, batch_size=4, device="cuda")
    step()
    report = measure_memory(step, model, optimizer)
    assert report.allocator_peak_bytes >= report.peak_bytes > 0
