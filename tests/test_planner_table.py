"""A plan as text: rows, figures of any size, and the command that trains by it."""

import shlex
from dataclasses import replace

import pytest

from utils.config import PRESETS
from utils.planner import PlanRequest, main, plan
from utils.planning.plan_table import columns, plan_command, plan_rows, size_rows, time_rows
from utils.planning.texts import dollars, duration, gigabytes, number, share, token_count
from utils.trainer.arguments import parse

SMALL = PlanRequest("gpt2-124m", 10e9, "H100 SXM", 8)
TERMINAL = ["--model", "gpt2-124m", "--tokens", "10e9", "--no-advice"]


@pytest.fixture(scope="module")
def small():
    return plan(SMALL)


def test_the_command_is_one_that_the_trainer_understands(small):
    line = plan_command(SMALL, small.hour, small.best)
    words = shlex.split(line)
    assert shlex.join(words[:6]) == (
        "torchrun --standalone --local-addr localhost --nproc-per-node 8"
    )
    settings = parse(words[words.index("utils.train") + 1 :], world_size=8)
    assert settings.recipe == small.best.recipe
    assert settings.steps == small.best.num_steps
    assert settings.config == replace(PRESETS["gpt2-124m"], vocab_size=256)
    many = replace(SMALL, num_gpus=16)
    assert "--nnodes 2" in plan_command(many, small.hour, plan(many).best)


def printed(capsys, *words):
    assert main([*TERMINAL, *words]) == 0
    return capsys.readouterr().out


def test_the_command_says_that_its_model_is_another_one(capsys):
    expected = (
        "; it trains a byte model of the same shape (a vocabulary of 256 instead of 50,257), so "
        "that the bill above is not exactly its bill:\n"
    )
    for gpus in ("1", "8"):
        out = printed(capsys, "--gpus", gpus)
        assert f"\nThe command{expected}" in out
        assert "$HEAD" not in out
    heading = "The command, on each machine, with $HEAD the first one's address"
    assert f"\n{heading}{expected}torchrun --nnodes 2" in printed(capsys, "--gpus", "16")


def test_a_byte_model_trains_as_it_was_planned(capsys):
    assert main(["--model", "laptop", "--tokens", "1e7", "--gpus", "1", "--no-advice"]) == 0
    assert "\nThe command:\npython -m utils.train " in capsys.readouterr().out


def test_rows_and_columns_are_plain_text(small):
    rows = plan_rows(small.feasible[:2])
    assert rows[0][0] == small.best.recipe.name
    assert columns([["a", "bb", "c"], ["long", "1", "22"]]) == ["a     bb   c", "long   1  22"]


def test_seconds_and_bytes_of_a_step_stand_apart_and_add_up(small):
    ddp = next(each for each in small.feasible if each.recipe.method == "ddp")
    for rows, unit, wholes in (
        (time_rows(small.best, ddp), "s", (small.best.step.total_s, ddp.step.total_s)),
        (size_rows(small.best, ddp), "GB", (small.best.peak.total / 1e9, ddp.peak.total / 1e9)),
    ):
        assert {len(row) for row in rows} == {5}
        for place, whole in zip((1, 3), wholes, strict=True):
            *parts, total = [row[place].split() for row in rows]
            assert {each[1] for each in (*parts, total)} == {unit}
            assert float(total[0]) == pytest.approx(whole, rel=0.01)
            assert sum(float(each[0]) for each in parts) == pytest.approx(whole, rel=0.01)
            shares = [float(row[place + 1].rstrip("%")) for row in rows]
            assert sum(shares[:-1]) == pytest.approx(100, abs=1.5) and shares[-1] == 100
    assert [row[0] for row in time_rows(small.best)][:2] == ["products", "element-wise"]
    assert "gathered" in [row[0] for row in size_rows(ddp, small.best)]


@pytest.mark.parametrize("written, expected", [
    (number(0.0355), "0.0355"), (number(12.34), "12.3"), (number(2054.4), "2,054"),
    (number(4.09e-8), "0.0000000409"), (number(0), "0"), (number(float("nan")), "NaN"),
    (dollars(2054.4), "$2,054"), (dollars(27.306), "$27.31"), (dollars(0.000656), "$0.000656"),
    (duration(12.34), "12.3 days"), (duration(1), "1 day"), (duration(0.0846), "2.03 hours"),
    (duration(1 / 24), "1 hour"), (duration(0.02), "1,728 seconds"), (duration(0), "0 seconds"),
    (gigabytes(107.61e9), "107.6"), (gigabytes(12.3e6), "0.0123"),
    (share(0.434), "43%"), (share(0.00491), "0.49%"),
    (token_count(15.6e12), "15,600 billion tokens"), (token_count(2.5e6), "2.5 million tokens"),
    (token_count(65_536), "65,536 tokens"),
])  # fmt: skip
def test_figures_of_any_size_are_read_without_counting_zeros(written, expected):
    assert written == expected


def test_a_plan_of_a_second_has_figures(capsys):
    assert main(["--model", "laptop", "--tokens", "1e7", "--gpus", "1", "--no-advice"]) == 0
    out = capsys.readouterr().out
    best = plan(PlanRequest("laptop", 1e7, num_gpus=1)).best
    assert 0 < best.usd < 0.01 and best.days < 1e-4
    (row,) = plan_rows([best])
    assert row[4] == f"{86_400 * best.days:.3g} seconds"
    assert float(row[5]) == pytest.approx(best.usd, rel=0.01)
    assert float(row[6]) == pytest.approx(best.kwh, rel=0.01)
    assert f"${row[5]} and {row[4]} for 10 million tokens of laptop" in out
    assert "$0 " not in out and " 0.0 " not in out and "e-" not in out
