"""The sharding explorer: what it draws and says, against the simulator; memory by hand."""

from dataclasses import replace

import pytest

from tests.explorer_controls import assert_every_control_counts
from utils.plots import new_figure
from utils.prices import price_spread
from utils.sharding_cost_explorer import draw_sharding_cost, sharding_cost_explorer
from utils.simulate.llama import find_llama
from utils.simulate.sharding_methods import memory_bytes, sharding_steps
from utils.simulate.yafsdp_published import calibrate_published, predict_yafsdp

SETTING = {"model": "Llama 2 7B", "num_gpus": 64, "sequence_length": 2048, "node_gb_s": 86}
METHODS = ["DDP", "ZeRO-2", "FSDP", "YaFSDP"]


def test_the_bars_are_the_simulators():
    figure = new_figure(8.4, 3.2)
    reading = draw_sharding_cost(figure, **SETTING, usd_per_gpu_hour=2.0)
    times, dollars = figure.axes
    assert [label.get_text() for label in times.get_yticklabels()] == METHODS
    computing, exposed = (container.patches for container in times.containers)
    fit = replace(calibrate_published(), node_bytes_per_s=86e9)
    steps = sharding_steps(find_llama("Llama 2 7B"), 64, 2048, fit)
    assert [step.method for step in steps] == METHODS
    for step, bar, wait, price in zip(steps, computing, exposed, dollars.patches, strict=True):
        assert bar.get_width() == pytest.approx(step.timeline.compute_s)
        assert wait.get_width() == pytest.approx(step.timeline.exposed_s)
        assert wait.get_x() == bar.get_width() and wait.get_hatch() == "////"
        usd = 1e9 / (64 * 2048) * step.timeline.total_s / 3600 * 64 * 2.0
        assert price.get_width() == pytest.approx(usd)
    assert f"FSDP takes {steps[2].timeline.total_s:.3f} s" in reading


def test_fsdp_and_yafsdp_are_those_of_the_published_table():
    fit = calibrate_published()
    row = predict_yafsdp()[0]
    steps = {s.method: s for s in sharding_steps(find_llama("Llama 2 7B"), 64, 2048, fit)}
    assert steps["FSDP"].timeline.total_s == row.fsdp.total_s
    assert steps["YaFSDP"].timeline.total_s == row.yafsdp.total_s


def test_what_does_not_fit_is_pale_and_says_what_it_needs():
    figure = new_figure(8.4, 3.2)
    reading = draw_sharding_cost(figure, **{**SETTING, "model": "Llama 2 70B"})
    assert reading.endswith("too large for 80 GB: DDP (1,104 GB), ZeRO-2 (153 GB).")
    computing = figure.axes[0].containers[0].patches
    assert [bar.get_alpha() for bar in computing] == [0.35, 0.35, None, None]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert [("needs" in word) for word in words] == [True, True, False, False]
    few = draw_sharding_cost(new_figure(), **{**SETTING, "model": "Llama 3 70B", "num_gpus": 8})
    assert few.endswith("FSDP (145 GB), YaFSDP (150 GB).")
    small = draw_sharding_cost(new_figure(), **SETTING)
    assert small.endswith("too large for 80 GB: DDP (108 GB).")


def test_memory_by_hand():
    shape = find_llama("Llama 2 7B")
    held = memory_bytes(shape, 1000, 16)
    assert held["DDP"] == 16 * shape.num_parameters
    assert held["ZeRO-2"] == pytest.approx((2 + 14 / 16) * shape.num_parameters)
    assert held["FSDP"] == shape.num_parameters + 4 * 1000
    assert held["YaFSDP"] == shape.num_parameters + 8 * 1000


def test_sharding_more_never_sends_less():
    """ZeRO-2 moves two thirds of what FSDP moves, and YaFSDP a little less than FSDP."""
    fit = calibrate_published()
    for model in ("Llama 2 7B", "Llama 3 70B"):
        steps = {s.method: s for s in sharding_steps(find_llama(model), 64, 2048, fit)}
        sent = {name: step.timeline.busy_s("communication") for name, step in steps.items()}
        assert sent["ZeRO-2"] < sent["YaFSDP"] < sent["FSDP"]
        for step in steps.values():
            busiest = max(step.timeline.compute_s, step.timeline.busy_s("communication"))
            assert step.timeline.total_s >= busiest * (1 - 1e-9)


def test_every_control_moves_to_both_ends_and_changes_the_reading():
    explorer = sharding_cost_explorer()
    assert f"${price_spread('A100 80GB').median:.2f} per GPU-hour" in explorer.title
    assert explorer.params == SETTING
    assert_every_control_counts(explorer, SETTING)


def test_an_own_price_scales_the_dollars():
    cheap, dear = sharding_cost_explorer(1.0), sharding_cost_explorer(10.0)
    texts = [e.reading.split("cost $")[1].split(";")[0] for e in (cheap, dear)]
    usd = [float(text.replace(",", "")) for text in texts]
    assert usd[1] == pytest.approx(10 * usd[0], rel=0.01)
