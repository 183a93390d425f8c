"""Bad input to the planner: one clear sentence each, in Python and in a terminal."""

from dataclasses import fields

import pytest

from utils.planner import PlanRequest, main, plan
from utils.planning.recipe_bytes import recipe_bytes
from utils.planning.request import MOST_TOKENS
from utils.planning.texts import named

GOOD = {"model": "gpt2-124m", "tokens": 1e9, "chip": "H100 SXM", "num_gpus": 8}


@pytest.mark.parametrize("changes, words", [
    ({"model": "gpt5"}, "There is no model 'gpt5'; the known ones are: laptop, "),
    ({"chip": "H1000"}, "There is no chip 'H1000'; the known ones are: V100 32GB"),
    ({"chip": "Sohu"}, "Sohu is made to serve models, not to train them."),
    ({"chip": "TPU v6e"}, "TPU v6e needs other software: these recipes are for GPUs."),
    ({"chip": "B300"}, "The table has no memory size or bandwidth for B300."),
    ({"num_gpus": 0}, "num_gpus (--gpus) must be a whole number from 1 on, not 0."),
    ({"num_gpus": 8.0}, "num_gpus (--gpus) must be a whole number from 1 on, not 8.0."),
    ({"num_gpus": 12}, "12 GPUs do not fill nodes of 8; take a multiple of 8, or at most 8."),
    ({"tokens": float("nan")}, "tokens (--tokens) must be a number above 0, not nan."),
    ({"tokens": None}, "tokens (--tokens) must be a number above 0, not None."),
    ({"tokens": 1e300}, "tokens (--tokens) must be at most 1e+18, not 1e+300."),
    ({"tokens": 1000}, "1,000 tokens are less than one step of 524,288: give more tokens, or"),
    ({"budget_usd": -1.0}, "budget_usd (--budget-usd) must be a number above 0, not -1.0."),
    ({"budget_usd": float("nan")}, "budget_usd (--budget-usd) must be a number above 0, not nan."),
    ({"deadline_days": float("inf")}, "deadline_days (--deadline-days) must be a number above"),
    ({"price": "free"}, "price (--price) must be one of on-demand, spot, marketplace, own, bought"),
    ({"price": "own"}, "An own price needs usd_per_gpu_hour (--usd-per-gpu-hour), in dollars."),
    ({"usd_per_gpu_hour": 0.0}, "usd_per_gpu_hour (--usd-per-gpu-hour) must be a number"),
    ({"inside": "a rope"}, "There is no link 'a rope'; the known ones are: NVLink 2 (V100)"),
    ({"sequences_per_step": 12}, "12 sequences a step do not divide among 8 GPUs: take a"),
    ({"methods": ("bakers",)}, "methods (--methods) must be some of single, ddp"),
    ({"methods": ()}, "methods (--methods) must be some of single, ddp"),
    ({"checkpointing": "on"}, "checkpointing (--checkpointing) must be allowed or off, not 'on'."),
])  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(changes, words):
    with pytest.raises(ValueError) as error:
        PlanRequest(**{**GOOD, **changes})
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes, words", [
    ({"chip": "V100 32GB"}, "There is no on-demand price of V100 32GB: give usd_per_gpu_hour ("),
    ({"chip": "A100 80GB", "price": "spot"}, "There is no spot price of A100 80GB: give"),
    ({"chip": "MI300X", "price": "bought"}, "There is no purchase price or power of MI300X"),
    ({"chip": "B200", "price": "spot"}, "There is no spot price of B200: give usd_per_gpu_hour ("),
    ({"methods": ("single",)}, "None of the methods single is for 8 GPUs: take ddp or another"),
    ({"methods": ("ddp",), "num_gpus": 1}, "None of the methods ddp is for 1 GPU: take single."),
])  # fmt: skip
def test_what_cannot_be_planned_is_refused(changes, words):
    with pytest.raises(ValueError) as error:
        plan(PlanRequest(**{**GOOD, **changes}))
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("changes, nearest", [
    ({"chip": "H100"}, "H100 SXM"),
    ({"chip": "h200"}, "H200"),
    ({"chip": "A100-80GB"}, "A100 80GB"),
    ({"model": "gpt2"}, "gpt2-124m"),
    ({"model": "llama-3-70b"}, "Llama 3 70B"),
    ({"model": "Llama-3.1-405B"}, "Llama 3.1 405B"),
    ({"between": "Infiniband"}, "InfiniBand 400 Gbit/s"),
])  # fmt: skip
def test_an_unknown_name_gets_the_nearest_known_one(changes, nearest):
    with pytest.raises(ValueError) as error:
        PlanRequest(**{**GOOD, **changes})
    assert str(error.value).endswith(f". Did you mean {nearest}?")


@pytest.mark.parametrize("changes", [{"chip": "Foo"}, {"model": "?"}, {"model": ""}])
def test_a_name_like_no_other_gets_no_hint(changes):
    with pytest.raises(ValueError, match="the known ones are") as error:
        PlanRequest(**{**GOOD, **changes})
    assert "Did you mean" not in str(error.value)


def test_as_many_tokens_as_anybody_needs_are_planned():
    assert PlanRequest(**{**GOOD, "tokens": MOST_TOKENS}).num_steps > 1e12


def test_what_a_refusal_asks_for_is_enough():
    """Adding what the sentence asks for, and nothing else, gives a plan."""
    for asked in ({"chip": "V100 32GB"}, {"chip": "A100 80GB", "price": "spot"}):
        assert plan(PlanRequest(**{**GOOD, **asked}, usd_per_gpu_hour=1.0)).best
    unbought = {**GOOD, "chip": "MI300X", "price": "bought"}
    with pytest.raises(ValueError, match=r"take the price \(--price\) own and give usd_per_gpu"):
        plan(PlanRequest(**unbought))
    assert plan(PlanRequest(**{**unbought, "price": "own"}, usd_per_gpu_hour=1.0)).best


def test_bytes_refuse_what_is_no_sequence(monkeypatch):
    with pytest.raises(ValueError, match="backend must be one of"):
        recipe_bytes(plan(PlanRequest(**GOOD)).best.recipe, PlanRequest(**GOOD).config, 0, "ucc")


def test_the_terminal_gets_the_plan_and_the_command(capsys):
    words = ["--model", "gpt2-124m", "--tokens", "10e9", "--gpus", "16", "--no-advice"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "16 x H100 SXM at $3.99 an hour (on-demand, median of" in out
    assert "torchrun --nnodes 2 --rdzv-backend c10d" in out
    assert "the cheapest of 24 recipes that work" in out
    assert "help most" not in out


def test_the_terminal_names_what_is_wrong_in_one_line(capsys):
    assert main(["--model", "gpt2-124m", "--tokens", "10e9", "--chip", "Foo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("utils.planner: There is no chip 'Foo'")
    assert error.count("\n") == 1
    assert main(["--model", "gpt2-124m", "--tokens", "10e9", "--gpus", "0"]) == 2
    assert "num_gpus (--gpus) must be a whole number from 1 on" in capsys.readouterr().err
    assert main(["--model", "gpt2-124m", "--tokens", "many"]) == 2
    assert "Argument --tokens: invalid float value: 'many'" in capsys.readouterr().err


def test_every_field_that_a_sentence_names_is_named_with_its_flag(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    options = capsys.readouterr().out.split()
    absent = {"only_low_precision", "assumptions"}
    for name in {each.name for each in fields(PlanRequest)} - absent:
        flag = named(name).removeprefix(f"{name} (").removesuffix(")")
        assert flag in options or f"[{flag}" in options, name


def test_the_terminal_says_what_would_help_when_nothing_works(capsys):
    words = ["--model", "llama2-7b-shape", "--tokens", "1e9", "--chip", "RTX 4090", "--gpus", "8"]
    assert main([*words, "--checkpointing", "off"]) == 1
    out = capsys.readouterr().out
    assert "Out (" in out
    assert "What would help most: " in out
    assert "nothing feasible -> $" in out
