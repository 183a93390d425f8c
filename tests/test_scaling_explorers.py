"""The scaling explorer: what it draws and says, against the simulator."""

import pytest

from tests.explorer_controls import assert_every_control_counts
from utils.config import PRESETS
from utils.hardware import find_chip
from utils.plots import new_figure
from utils.prices import price_spread
from utils.scaling_explorers import draw_scaling, draw_timeline, merged, scaling_explorer
from utils.simulate import Setup, Task, simulate, simulate_step

SETTING = {"log2_gpus": 6, "preset": "gpt2-1.5b", "batch_per_gpu": 4}
NETWORK = {"network_gbit_s": 400, "bucket_mib": 25}


def bars(axes):
    """Label -> (start, width) of each bar, in milliseconds."""
    return {
        collection.get_label(): [
            (path.vertices[:, 0].min(), path.vertices[:, 0].max())
            for path in collection.get_paths()
        ]
        for collection in axes.collections
    }


def test_the_reading_is_the_simulators():
    figure = new_figure(8.4, 3.4)
    reading = draw_scaling(figure, **SETTING, **NETWORK, usd_per_gpu_hour=4.0)
    rate = find_chip("H100 SXM").peak_flops() * 0.5
    point = simulate_step(Setup(PRESETS["gpt2-1.5b"], rate), 64, 4)
    assert f"at {100 * point.efficiency:.1f} % efficiency" in reading
    assert f"${point.usd_per_billion_tokens(4.0):.1f}" in reading
    shown = bars(figure.axes[0])
    exposed_ms = sum(end - start for start, end in shown["exposed"])
    assert exposed_ms == pytest.approx(1e3 * point.timeline.exposed_s)
    computed = [*shown["forward"], *shown["backward"]]
    assert sum(end - start for start, end in computed) == pytest.approx(
        1e3 * point.timeline.compute_s
    )


def test_the_chosen_number_of_gpus_lies_on_the_curve():
    figure = new_figure(8.4, 3.4)
    draw_scaling(figure, **{**SETTING, "log2_gpus": 7}, **NETWORK)
    curve, chosen = figure.axes[1].lines
    assert (7, chosen.get_ydata()[0]) in zip(*curve.get_data(), strict=True)
    assert [*curve.get_xdata()] == [0, 2, 4, 6, 7, 8, 10, 12]


def test_a_model_that_does_not_fit_is_said_not_to():
    small = draw_scaling(new_figure(), **SETTING, **NETWORK)
    large = draw_scaling(new_figure(), **{**SETTING, "preset": "llama2-70b-shape"}, **NETWORK)
    assert "holds" not in small
    assert large.endswith("but a replica holds 1.13 TiB, and an H100 only 80 GB.")


def test_one_gpu_sends_no_message():
    reading = draw_scaling(new_figure(), **{**SETTING, "log2_gpus": 0}, **NETWORK)
    assert reading.startswith("1 GPU trains gpt2-1.5b at 100.0 % efficiency: 0 ms of a step")
    assert "(0 messages)" in reading


def test_touching_intervals_are_drawn_as_one():
    assert merged([(0, 1), (1, 2), (2, 2), (3, 4), (3.5, 3.6)]) == [(0, 2), (3, 4)]
    assert merged([]) == []


def test_exposed_communication_is_drawn_where_compute_stands_still():
    axes = new_figure().subplots()
    tasks = [Task("backward", "compute", 1.0), Task("send", "communication", 2.0, ("backward",))]
    draw_timeline(axes, simulate(tasks))
    shown = bars(axes)
    assert shown["exposed"] == shown["hidden"] == [(1000.0, 3000.0)]
    assert shown["forward"] == [] and shown["backward"] == [(0.0, 1000.0)]
    assert axes.collections[3].get_hatch() == "////"


def test_every_control_moves_to_both_ends_and_changes_the_reading():
    explorer = scaling_explorer()
    assert f"${price_spread('H100 SXM').median:.2f} per GPU-hour" in explorer.title
    assert_every_control_counts(explorer, {**SETTING, **NETWORK})


def test_an_own_price_scales_the_dollars():
    cheap, dear = scaling_explorer(1.0), scaling_explorer(10.0)
    usd = [float(e.reading.rsplit("$", 1)[1].rstrip(".")) for e in (cheap, dear)]
    assert usd[1] == pytest.approx(10 * usd[0], rel=0.01)
