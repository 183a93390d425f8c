"""Lesson 08's explorer: what it draws and says, against the formulas."""

import pytest

from tests.explorer_controls import assert_every_control_counts
from utils.bytes_per_gpu_explorer import MeasuredPeak, bytes_per_gpu_explorer, draw_bytes_per_gpu
from utils.config import PRESETS
from utils.hardware import find_chip
from utils.plots import OKABE_ITO, bytes_text, new_figure
from utils.predict_sharded import predict_sharded, smallest_number_of_gpus

SETTING = {
    "log2_gpus": 3, "model": "gpt2-1.5b", "stage": "FSDP", "precision": "bf16",
    "checkpointing": False, "batch_size": 4, "chip": "H100 SXM",
}  # fmt: skip
RUN = MeasuredPeak("laptop", "FSDP", 4, 2, 5_000_000)


def draw(**changes):
    figure = new_figure(9.0, 3.8)
    return figure, draw_bytes_per_gpu(figure, **{**SETTING, **changes})


def test_the_reading_is_the_formulas():
    _, reading = draw(model="llama2-70b-shape", log2_gpus=6, checkpointing=True)
    config = PRESETS["llama2-70b-shape"]
    step = predict_sharded(config, "FSDP", 64, 4, "bf16", True)
    fewest = smallest_number_of_gpus(config, "FSDP", 80e9, 4, "bf16", True)
    assert reading == (
        f"With FSDP, 64 GPUs each hold {bytes_text(step.held.total)} of weights, gradients and "
        f"optimizer state for llama2-70b-shape, and the step peaks at "
        f"{bytes_text(step.peak.total)}; the smallest number of H100 SXM (80 GB) on which it fits "
        f"is {fewest}."
    )


def test_one_gpu_none_that_is_enough_and_one_that_is():
    _, reading = draw(model="llama2-70b-shape", stage="DDP", log2_gpus=0)
    assert reading.startswith("With DDP, 1 GPU holds 1.00 TiB of weights, gradients and optimizer")
    assert reading.endswith("; no number of H100 SXM (80 GB) is enough for it.")
    assert draw(chip="H200")[1].endswith("; one H200 (141 GB) is enough for it.")


def test_the_bars_are_the_categories_at_the_peak():
    figure, _ = draw()
    bars = figure.axes[0]
    names = [label.get_text() for label in bars.get_xticklabels()]
    assert names == ["4", "8 (chosen)", "16"]
    for column, num_ranks in enumerate((4, 8, 16)):
        peak = predict_sharded(PRESETS["gpt2-1.5b"], "FSDP", num_ranks, 4, "bf16").peak
        heights = [group[column].get_height() for group in bars.containers]
        assert heights == list(peak.by_category().values())
        tops = [group[column].get_y() + group[column].get_height() for group in bars.containers]
        assert tops[-1] == peak.total
    colours = [group[0].get_facecolor() for group in bars.containers]
    assert len(set(colours)) == 5 <= len(OKABE_ITO)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(peak.by_category())


def test_the_curve_shows_the_chosen_number_and_the_chips_memory():
    figure, _ = draw(log2_gpus=7, model="llama2-7b-shape")
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    peaks = dict(zip(*lines["predicted"].get_data(), strict=True))
    assert list(peaks) == list(range(11))
    assert lines["chosen"].get_data() == ([7], [peaks[7]])
    assert set(lines["chip"].get_ydata()) == {find_chip("H100 SXM").memory_gb * 1e9}
    assert "measured" not in lines
    assert "chip" not in {line.get_label() for line in draw(model="laptop")[0].axes[1].lines}


def test_measured_points_show_only_in_their_own_setting():
    here = {"model": "laptop", "precision": "fp32", "batch_size": 2, "measured": [RUN]}
    figure, reading = draw(log2_gpus=2, **here)
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert lines["measured"].get_data() == ([2], [RUN.peak_bytes])
    predicted = predict_sharded(PRESETS["laptop"], "FSDP", 4, 2).peak.total
    assert f"(measured here: 5,000,000 bytes, predicted: {predicted:,})" in reading
    assert "measured here" not in draw(log2_gpus=3, **here)[1]  # shown, but not chosen
    other = draw(log2_gpus=2, **{**here, "batch_size": 3})[0]
    assert "measured" not in {line.get_label() for line in other.axes[1].lines}


def test_every_control_moves_to_both_ends_and_changes_the_reading():
    explorer = bytes_per_gpu_explorer(measured=[RUN])
    assert_every_control_counts(explorer, SETTING, precision=("fp32", "bf16"))
    assert explorer.png.startswith(b"\x89PNG")


def test_a_setting_without_sense_is_answered_in_words():
    explorer = bytes_per_gpu_explorer()
    explorer.controls["precision"].value = "bf16, fp32 shards"
    assert explorer.error is None
    explorer.controls["stage"].value = "ZeRO-2"
    assert explorer.error is None
    words = "ZeRO-2 keeps whole weights, so they have one precision: choose fp32 or bf16."
    assert explorer.reading == words == explorer.figure.texts[0].get_text()


@pytest.mark.parametrize("changes", [{"model": "unknown"}, {"num_ranks": 3}])
def test_points_that_cannot_be_shown_are_refused(changes):
    with pytest.raises(ValueError, match="cannot be shown: its model must be one of"):
        bytes_per_gpu_explorer(measured=[MeasuredPeak(**{**vars(RUN), **changes})])
