"""The oracle of every recipe is one process: the trainer's losses, bytes and dollars against it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer_runs import TINY, call_main, log_of, train_on_ranks, words_of, write_text
from utils.config import PRESETS, GPTConfig
from utils.corpus import load_corpus
from utils.costs import count_parameters, training_flops
from utils.model import build_gpt
from utils.peers.harness import measure_system
from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe
from utils.train import TrainingConfig, train
from utils.trainer.arguments import config_flags, parse
from utils.trainer.log import TrainingLog, read_log
from utils.trainer.systems import job_of, system_of

CONFIG = GPTConfig(num_layers=2, num_heads=2, model_dim=32, context_length=32)
ON_TWO = [
    TrainingRecipe(method="ddp", num_ranks=2, batch_size=4),
    TrainingRecipe(method="zero3", library="ours", num_ranks=2, batch_size=4),
    TrainingRecipe(method="yafsdp", library="ours", num_ranks=2, batch_size=2, micro_batches=2),
]
TOLERANCE = {"fp32": 2e-6, "bf16": 5e-3, "fp16": 1e-3}  # nats a byte, over six steps


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> TrainingLog:
    """One fp32 process, eight sequences a step."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return log_of(TrainingRecipe(), folder, "--validate-every", 3, "--usd-per-gpu-hour", 3.6)


def test_one_process_trains_exactly_as_the_first_lesson(alone: TrainingLog, tmp_path: Path) -> None:
    corpus = load_corpus(write_text(tmp_path / "text.txt"))
    schedule = TrainingConfig(8, 32, warmup_steps=2)
    run = train(build_gpt(CONFIG), corpus, schedule, steps=6)
    assert list(run.losses) == alone.losses
    assert len(set(run.losses)) == 6  # it has trained


@pytest.mark.parametrize("recipe", ON_TWO, ids=lambda recipe: recipe.name)
def test_ranks_train_as_one_process(
    recipe: TrainingRecipe, alone: TrainingLog, tmp_path: Path
) -> None:
    log = log_of(recipe, tmp_path / "run", "--no-memory", "--validate-every", 3)
    assert log.losses == pytest.approx(alone.losses, abs=TOLERANCE["fp32"])
    theirs = [each["loss"] for each in log.validations]
    assert theirs == pytest.approx([each["loss"] for each in alone.validations], abs=2e-6)
    assert [each["rank"] for each in log.end["ranks"]] == [0, 1]


@pytest.mark.parametrize(
    "recipe",
    [
        TrainingRecipe("bf16", checkpointing="blocks"),
        TrainingRecipe("bf16", library="ours", attention="explicit"),
        TrainingRecipe("fp16", batch_size=4, micro_batches=2),
        TrainingRecipe("fp16", library="ours"),
        TrainingRecipe("bf16", method="zero2", library="ours"),
        TrainingRecipe("bf16", method="fsdp"),
    ],
    ids=lambda recipe: recipe.name,
)
def test_precisions_on_one_rank_stay_near(
    recipe: TrainingRecipe, alone: TrainingLog, tmp_path: Path
) -> None:
    assert call_main(words_of(recipe, tmp_path / "run", "--no-memory")).code == 0
    losses = read_log(tmp_path / "run").losses
    assert losses == pytest.approx(alone.losses, abs=TOLERANCE[recipe.precision])
    assert losses != alone.losses  # the precision has been used


def test_a_run_leaves_nothing_behind_in_its_process(alone: TrainingLog, tmp_path: Path) -> None:
    assert log_of(TrainingRecipe(), tmp_path / "run", "--no-memory").losses == alone.losses


def test_deepspeed_trains_as_one_process(alone: TrainingLog, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    recipe = TrainingRecipe(method="zero2", library="deepspeed", num_ranks=2, batch_size=4)
    log = log_of(recipe, tmp_path / "run", "--no-memory", "--save-every", 4)
    assert log.losses == pytest.approx(alone.losses, abs=TOLERANCE["fp32"])
    (tmp_path / "run" / "step-000006").rename(tmp_path / "kept")
    again = log_of(recipe, tmp_path / "run", "--no-memory", "--resume")
    assert again.losses == log.losses and again.start["resumed_from"] == 4
    (tmp_path / "run" / "step-000006").rename(tmp_path / "kept too")
    other = TrainingRecipe(method="zero2", library="deepspeed")
    ended = train_on_ranks(other, tmp_path / "run", "--no-memory", "--resume")
    assert ended[0].code == 2
    assert "is cut for 2 ranks and cannot be taken by 1: start 2 ranks." in ended[0].err


def test_the_log_says_what_the_run_is(alone: TrainingLog) -> None:
    start, flops = alone.start, training_flops(CONFIG, 8, 32)
    assert start["recipe"] == json.loads(json.dumps(vars(TrainingRecipe())))
    assert GPTConfig(**start["config"]) == CONFIG
    assert start["num_parameters"] == count_parameters(CONFIG).total
    assert (start["tokens_per_step"], start["flops_per_step"]) == (256, flops)
    assert start["recomputed_flops_per_step"] == 0
    assert start["settings"]["text_bytes"] == 20_000
    assert len(start["settings"]["text_sha256"]) == 64
    assert start["peak_source"] == "measured product" and start["peak_dtype"] == "fp32"
    for number, step in enumerate(alone.steps, start=1):
        seconds = 256 / step["tokens_per_s"]
        assert (step["step"], step["tokens"]) == (number, 256 * number)
        assert step["mfu"] == pytest.approx(flops / seconds / start["peak_flops_per_s"])
        assert step["usd"] == pytest.approx(step["seconds"] / 1000)  # $3.60 an hour
    assert alone.end["seconds"] == alone.steps[-1]["seconds"]
    assert alone.end["validation_loss"] == alone.validations[-1]["loss"]
    assert [each["step"] for each in alone.validations] == [3, 6]


def test_bytes_of_the_end_are_those_of_the_meter(tmp_path: Path) -> None:
    """On two ranks, with the traffic that ZeRO-2's formula wants of a step."""
    recipe = TrainingRecipe(method="zero2", library="ours", num_ranks=2, batch_size=4)
    log = log_of(recipe, tmp_path / "run")
    job = job_of(recipe, CONFIG, max_norm=1.0)
    by_hand = run_ranks(measure_system, 2, system_of(recipe), job)
    for mine, theirs in zip(log.end["ranks"], by_hand, strict=True):
        assert mine["held"] == theirs.held
        assert mine["peak_bytes"] == theirs.peak_bytes
        # Reduce-scatter and all-gather of the fp32 weights, and the clipping's norm.
        weights_bytes = 4 * count_parameters(CONFIG).total
        assert mine["sent_bytes_per_step"] == pytest.approx(weights_bytes, abs=200)
        assert mine["allocator_peak_bytes"] is None


def test_a_config_comes_back_from_its_words() -> None:
    odd = replace(
        PRESETS["laptop-wide"], num_kv_heads=2, ff_dim=100, bias=False, tied_embeddings=True,
        vocab_size=300,
    )  # fmt: skip
    plain = replace(PRESETS["llama2-7b-shape"], ff_dim=None)
    for config in (*PRESETS.values(), CONFIG, odd, plain):
        settings = parse(["--folder", "x", *config_flags(config)])
        assert settings.config == config
    assert config_flags(PRESETS["gpt2-124m"]) == ("--preset", "gpt2-124m")
    assert parse(["--folder", "x", *TINY]).config == CONFIG
