"""Every recipe trains: as one process does, and checkpointing changes no bit of it."""

from dataclasses import replace

import pytest
import torch

from tests.system_runs import (
    CONFIG,
    ODD,
    WAYS,
    Case,
    gaps,
    measure_all,
    recipe_of,
    run_all,
    same,
)
from utils.costs import count_parameters
from utils.model import build_gpt
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe
from utils.trainer.systems import config_of, job_of, system_of, training_device

LOSS_LIMIT, WEIGHT_LIMIT = 1e-5, 1e-4  # fp32; Adam's steps of 0.01 enlarge the last bits
BF16_LIMIT = 5e-3  # of a loss, in nats
SHARDED = [way for way in WAYS if way[0] not in WHOLE_WEIGHTS]


def cases_of(precision):
    """Of each way a plain training, one with dropout, and one with all that a recipe can add."""
    explicit = dict(precision=precision, attention="explicit", micro_batches=3)
    return {
        (way, name): Case(recipe, config)
        for way in WAYS
        for name, recipe, config in (
            ("plain", recipe_of(*way, precision=precision), CONFIG),
            ("dropout", recipe_of(*way, precision=precision), replace(CONFIG, dropout=0.2)),
            ("odd", recipe_of(*way, **explicit), ODD),
        )
    }


@pytest.fixture(scope="module", params=("fp32", "bf16"))
def trained(request):
    """The precision, and of each case its runs without and with checkpointing."""
    cases = cases_of(request.param)
    runs = run_all([each for case in cases.values() for each in (case, case.again())])
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return request.param, cases, dict(zip(cases, pairs, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_it_trains_as_one_process_does(trained, way):
    precision, cases, runs = trained
    for name in ("plain", "odd"):
        plain, _ = runs[way, name]
        loss, weight = gaps(cases[way, name], plain)
        if precision == "fp32":
            assert loss < LOSS_LIMIT and weight < WEIGHT_LIMIT
            if way[0] in WHOLE_WEIGHTS and name == "plain":
                assert (loss, weight) == (0.0, 0.0)
        else:
            assert 1e-6 < loss < BF16_LIMIT
        assert len(set(plain[0].losses)) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["plain", "dropout", "odd"])
def test_checkpointing_changes_no_bit(trained, way, name):
    _, _, runs = trained
    plain, again = runs[way, name]
    assert same(plain, again)
    sent, sent_again = ([run.sent_bytes for run in each] for each in (plain, again))
    if way == ("zero3", "deepspeed"):  # it gathers the layers of a block for their second run too
        assert all(more > 1.15 * once for once, more in zip(sent, sent_again, strict=True))
    else:
        assert sent == sent_again


@pytest.mark.parametrize("method", WHOLE_WEIGHTS)
@pytest.mark.parametrize("name", ["plain", "dropout", "odd"])
def test_ours_and_torchs_agree_in_every_bit(trained, method, name):
    _, _, runs = trained
    assert same(runs[(method, "ours"), name][0], runs[(method, "torch"), name][0])


def test_dropout_drops_something(trained):
    _, _, runs = trained
    for way in WAYS:
        assert not same(runs[way, "plain"][0], runs[way, "dropout"][0])


@pytest.mark.filterwarnings("ignore:4 ranks on")
@pytest.mark.parametrize("num_ranks", [1, 4])
def test_one_rank_and_four_train_as_one_process_does(num_ranks):
    choices = dict(num_ranks=num_ranks, checkpointing="blocks")
    ways = [way for way in WAYS if way[0] != "single" and way[1] != "deepspeed"]
    cases = [Case(recipe_of(*way, **choices), ODD) for way in ways]
    for case, runs in zip(cases, run_all(cases), strict=True):
        loss, weight = gaps(case, runs)
        assert loss < LOSS_LIMIT and weight < WEIGHT_LIMIT, case.recipe.name


DEEP = replace(CONFIG, num_layers=5, context_length=64)  # activations outweigh weights
MEASURED = [way for way in WAYS if way != ("zero1", "deepspeed")]  # it does what its zero2 does


@pytest.fixture(scope="module")
def bytes_of():
    """Of each way the fullest rank's bytes: in fp32, in bf16, and there with checkpointing."""
    plain = {way: Case(recipe_of(*way, batch_size=4), DEEP) for way in MEASURED}
    low = {way: Case(recipe_of(*way, batch_size=4, precision="bf16"), DEEP) for way in MEASURED}
    cases = [*plain.values(), *low.values(), *(case.again() for case in low.values())]
    fullest = [max(each, key=lambda size: size.peak_bytes) for each in measure_all(cases)]
    num = len(MEASURED)
    thirds = (fullest[start : start + num] for start in range(0, 3 * num, num))
    return dict(zip(MEASURED, zip(*thirds, strict=True), strict=True))


@pytest.mark.parametrize("way", MEASURED)
def test_checkpointing_lowers_the_peak_and_nothing_that_lasts(bytes_of, way):
    _, plain, again = bytes_of[way]
    assert again.held_bytes == pytest.approx(plain.held_bytes, rel=0.01)
    assert again.peak_bytes - again.held_bytes < 0.6 * (plain.peak_bytes - plain.held_bytes)


@pytest.mark.parametrize("way", MEASURED)
def test_16_bits_lower_the_peak(bytes_of, way):
    fp32, bf16, _ = bytes_of[way]
    assert bf16.peak_bytes < 0.85 * fp32.peak_bytes


@pytest.mark.parametrize("way", MEASURED)
def test_bf16_keeps_fp32_values_to_update(bytes_of, way):
    """As the recipe's docstring says: fp32 weights, fp32 shards, or bf16 weights and masters."""
    total = count_parameters(DEEP).total
    held = {name: size / total for name, size in bytes_of[way][1].held.items()}
    weights = {"zero1": 2, "zero2": 2, "zero3": 1}.get(way[0], 4)
    if way[0] in WHOLE_WEIGHTS:
        assert held["parameters"] == weights and held["gradients"] == 4
        assert held["optimizer state"] == pytest.approx(8, rel=0.01)
    elif way[0].startswith("zero"):
        assert held["parameters"] == pytest.approx(weights, rel=0.01)
        assert held["optimizer state"] == pytest.approx(6, rel=0.01)  # masters too, of half
    else:
        assert held["optimizer state"] == pytest.approx(4, rel=0.01)
        assert held["parameters"] >= 2


@pytest.mark.parametrize("library", ["torch", "ours"])
def test_nothing_is_renamed(library):
    """A saved run may go on with another recipe."""
    plain = build_gpt(CONFIG)
    model = build_gpt(CONFIG)
    recipe = TrainingRecipe("bf16", "fused", "blocks", "single", library)
    system = system_of(recipe)(model, 0, 1, job_of(recipe, CONFIG))
    assert system.model is model
    for names in ("named_parameters", "named_modules"):
        found, expected = (dict(getattr(each, names)()) for each in (model, plain))
        assert list(found) == list(expected)
    assert list(model.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("way", SHARDED)
def test_the_wrong_number_of_ranks_is_refused(way):
    recipe = recipe_of(*way, num_ranks=4)
    with pytest.raises(ValueError, match=r"^The recipe is for num_ranks=4, but 2 are running\.$"):
        system_of(recipe)(build_gpt(CONFIG), 0, 2, job_of(recipe, CONFIG))


def test_a_job_is_the_recipes_batch_and_attention():
    recipe = TrainingRecipe("bf16", "explicit", method="ddp", batch_size=3, micro_batches=5,
                            num_ranks=2)  # fmt: skip
    job = job_of(recipe, CONFIG, num_steps=7)
    assert job.config == config_of(recipe, CONFIG) == replace(CONFIG, attention="explicit")
    assert (job.batch_size, job.num_micro_batches, job.num_steps) == (30, 5, 7)
    assert job.low_precision and not job_of(TrainingRecipe("fp16"), CONFIG).low_precision


def test_one_process_needs_no_group():
    recipe = TrainingRecipe()
    system = system_of(recipe)(build_gpt(CONFIG), 0, 1, job_of(recipe, CONFIG))
    tokens_BT = torch.zeros(2, 8, dtype=torch.long)
    losses = []
    for _ in range(3):
        losses.append(system.backward(tokens_BT, tokens_BT, True).item())
        system.step()
    assert losses[0] > losses[1] > losses[2]
    assert training_device(0).type == ("cuda" if torch.cuda.is_available() else "cpu")
