"""What the ladder says: dollars, FLOPs, its table and sentences, its figure."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.ladder_rows import result
from utils.experiments.ladder import CONFIG, RUNGS, RungResult
from utils.experiments.ladder_ranks import RankReport, StepSeconds
from utils.experiments.ladder_results import per_token, slowest_steps, step_flops
from utils.ladder_best import cheapest, lowest
from utils.ladder_plots import draw_ladder
from utils.ladder_report import (
    LADDER_HEADERS,
    PREDICTED_HEADERS,
    ladder_rows,
    predicted_rows,
    print_ladder,
    print_verdict,
    slower_rungs,
    step_sentences,
)
from utils.measured import MARK
from utils.model import build_gpt
from utils.peers import loss_of
from utils.planning.recipe_bytes import recipe_bytes
from utils.planning.this_machine import SHAPES, MachineTimes, simpler_ways, way_of
from utils.plots import checked_reading, new_figure, png_of
from utils.timing import Timing
from utils.trainer.systems import checkpoint_blocks, config_of


@pytest.fixture
def results():
    return [result(number) for number in range(8)]


def test_dollars_are_device_hours_times_the_price(results):
    assert results[0].tokens_per_s == pytest.approx(200 / 0.010)
    # 1e9 tokens at 20,000 a second are 13.9 hours of one core.
    assert results[0].usd_per_billion_tokens(0.05) == pytest.approx(1e9 / 20_000 / 3600 * 0.05)
    two = results[5]  # 400 tokens in 60 ms on two cores
    assert two.usd_per_billion_tokens(1.0) == pytest.approx(2 * 1e9 / (400 / 0.060) / 3600)
    assert results[0].usd_per_billion_tokens(0) == 0
    for price in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="0 dollars an hour or more"):
            results[0].usd_per_billion_tokens(price)


def test_what_the_rent_pays_for_is_device_time(results):
    times = per_token(results)
    assert times.timings["fp32"].median_s == pytest.approx(0.010 / 200)
    assert times.timings["2 x DDP"].median_s == pytest.approx(2 * 0.060 / 400)
    dollars = [each.usd_per_billion_tokens(1.0) for each in results]
    medians = [times.timings[each.rung.name].median_s for each in results]
    assert dollars == pytest.approx([1e9 / 3600 * median for median in medians])


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_flops_are_torchs_count(number):
    recipe = replace(RUNGS[number].recipe, precision="fp32", attention="explicit")
    model = build_gpt(config_of(recipe, CONFIG))
    if recipe.checkpointing == "blocks":
        checkpoint_blocks(model)
    tokens_BT = torch.zeros(recipe.batch_size, CONFIG.context_length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        loss_of(model, tokens_BT, tokens_BT).backward()
    assert step_flops(recipe, CONFIG) == counter.get_total_flops()
    assert step_flops(RUNGS[number].recipe, CONFIG) == counter.get_total_flops()


def test_the_slowest_rank_makes_the_step():
    def report(*totals_s):
        return RankReport([[StepSeconds(each, each / 10) for each in totals_s]], [None], 4)

    steps = slowest_steps([report(1.0, 5.0, 2.0), report(3.0, 4.0, 1.0)], 0)
    assert [each.total_s for each in steps] == [3.0, 5.0, 2.0]
    assert steps[1].update_s == 0.5
    alone = [report(1.0, 2.0), RankReport([None], [None], 4)]
    assert [each.total_s for each in slowest_steps(alone, 0)] == [1.0, 2.0]


def test_the_table_marks_what_was_measured_and_nothing_else(results):
    rows = ladder_rows(results, 0.05)
    assert [len(row) for row in rows] == [len(LADDER_HEADERS)] * 8
    plain, marked = rows[3][:5], rows[3][5:]
    assert plain == ["checkpointing", "checkpointing", "4.00", "2.00", "1.25"]
    assert all(cell.startswith(MARK) for cell in marked)
    texts = [cell.strip(f"{MARK} ") for cell in marked]
    assert texts == ["40", "30.0 ms", "6,670", "$2.08", "3.030"]
    assert rows[0][1] == "" and rows[5][1] == "method"


def test_the_table_is_printed_with_price_tokens_and_problems(results, capsys):
    results[7] = RungResult(RUNGS[7], problem="memory ran out")
    print_ladder(results, 0.05)
    out = capsys.readouterr().out
    assert "A core costs $0.05 an hour" in out and "8,000" in out
    assert "2 x YaFSDP | method | - | -" in out and "2 x YaFSDP: memory ran out." in out


def test_sentences_say_what_a_rung_saved_and_what_it_took(results):
    sentences = step_sentences(results)
    assert len(sentences) == 7
    assert sentences[0].startswith("bf16: peak -20.0%, FLOPs +0.0%; device time a token")
    assert "2.00x the time" in sentences[0] and "slower" in sentences[0]
    assert sentences[2].startswith("checkpointing: peak -33.3%, FLOPs +25.0%")
    assert "1.00x the time" in sentences[6] and "too noisy to tell" in sentences[6]
    assert sentences[3].endswith(f"loss {MARK} +0.010 {MARK}")


def test_the_verdict_names_what_does_not_pay(results, capsys):
    assert slower_rungs(results) == ["bf16", "checkpointing", "2 x DDP", "2 x FSDP"]
    assert cheapest(results) == [results[0]] and lowest(results) == [results[6]]
    print_verdict(results)
    out = capsys.readouterr().out
    assert f"Cheapest tokens: {MARK} fp32 {MARK}" in out and "Lowest peak: 2 x FSDP" in out
    print_verdict(results[:1])
    assert f"{MARK} none {MARK}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="No rung"):
        cheapest([RungResult(RUNGS[0], problem="memory ran out")])


def test_rungs_that_cannot_be_told_apart_tie(results, capsys):
    low_s, middle_s, high_s = results[0].timing.runs_s
    results[1] = replace(results[1], timing=Timing((0.9 * low_s, middle_s, 1.2 * high_s)))
    results[7] = replace(results[7], peak_bytes=results[6].peak_bytes)
    assert {each.rung.name for each in cheapest(results)} == {"fp32", "bf16"}
    assert lowest(results) == results[6:]
    print_verdict(results)
    out = capsys.readouterr().out
    assert "fp32 and bf16 (they tie)" in out
    assert "Lowest peak: 2 x FSDP and 2 x YaFSDP (they tie)" in out
    reading = draw_ladder(new_figure(8.6, 3.6), results, 0.05)
    assert reading.startswith("The lowest peak is that of 2 x FSDP and 2 x YaFSDP (they tie), 70%")


def test_the_figure_has_three_panels_and_a_reading_of_one_sentence(results):
    figure = new_figure(8.6, 3.6)
    reading = checked_reading(draw_ladder(figure, [*results[:7], RungResult(RUNGS[7])], 0.05))
    assert reading.startswith("The lowest peak is that of 2 x FSDP, 70% below fp32;")
    assert f"cheapest tokens are those of {MARK} fp32 {MARK};" in reading
    assert reading.endswith(f"a loss of {MARK} 3.04 {MARK} instead of {MARK} 3.00 {MARK}.")
    bytes_axes, usd_axes, loss_axes = figure.get_axes()
    assert [text.get_text() for text in bytes_axes.get_yticklabels()] == [
        each.rung.name for each in results[:7]
    ]
    markers = [axes.lines[0].get_marker() for axes in (usd_axes, loss_axes)]
    assert len(set(markers)) == 2
    assert len(png_of(figure)) > 10_000
    with pytest.raises(ValueError, match="No rung"):
        draw_ladder(new_figure(), [RungResult(RUNGS[0])], 0.05)


def test_predictions_stand_beside_what_came(results):
    times = {shape: (0.010, 0.001) for shape in SHAPES}  # the same for any depth and batch
    ways = {way for rung in RUNGS for way in (way_of(rung.recipe), *_simpler(rung))}
    rows = predicted_rows(results, CONFIG, MachineTimes(CONFIG, dict.fromkeys(ways, times)))
    assert [len(row) for row in rows] == [len(PREDICTED_HEADERS)] * 8
    peak_bytes = recipe_bytes(RUNGS[0].recipe, CONFIG).peak.total
    assert rows[0][:4] == [
        "fp32", f"{peak_bytes / 1e6:,.2f} MB", "10.00 MB", f"{peak_bytes / 1e7 - 1:+.1%}"
    ]  # fmt: skip
    assert [cell.strip(f"{MARK} ") for cell in rows[0][4:]] == ["11.0 ms", "10.0 ms", "+10%"]


def _simpler(rung):
    return simpler_ways(way_of(rung.recipe)).values()
