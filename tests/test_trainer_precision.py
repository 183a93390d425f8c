"""Systems in 16 bits: autocast is on, fp16 is scaled, and a step that overflows is skipped."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers import batch_for
from tests.system_runs import CONFIG, Case, gaps, recipe_of, run_all, same
from utils.model import build_gpt
from utils.peers.harness import batches, parts_of
from utils.ranks import run_ranks
from utils.recipe import WHOLE_WEIGHTS, TrainingRecipe
from utils.saved import saved_bytes
from utils.techniques.loss_scaling import DynamicScaler
from utils.trainer.systems import DTYPES, job_of, system_of

LIBRARIES = ("torch", "ours")
FP16_LIMIT = 3e-3  # of a loss, in nats, after three steps
TOO_LARGE, NUM_STEPS = 2.0**26, 14  # a scale, and more steps than it takes to bring it down


def alone(precision, library="torch", **choices):
    """A system of one process, without ranks."""
    recipe = TrainingRecipe(precision, library=library, batch_size=4, **choices)
    return system_of(recipe)(build_gpt(CONFIG), 0, 1, job_of(recipe, CONFIG))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_forward_pass_computes_in_the_recipes_format(library, precision):
    system = alone(precision, library)
    tokens_BT, _ = batch_for(CONFIG, 4)
    seen = []
    system.model.blocks[1].feed_forward.widen.register_forward_hook(
        lambda module, args, result: seen.append(result.dtype)
    )
    logits_BTV = system.network(tokens_BT)
    dtype = DTYPES.get(precision, torch.float32)
    assert logits_BTV.dtype == dtype and seen == [dtype]
    assert {each.dtype for each in system.model.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_shrink_what_is_kept_for_backward_equally(precision):
    tokens_BT, _ = batch_for(CONFIG, 32)  # activations outweigh copies of weights
    kept = {}
    for name in ("fp32", precision):
        for library in LIBRARIES:
            system = alone(name, library)
            kept[name, library] = saved_bytes(
                system.model, lambda system=system: system.network(tokens_BT)
            )
    assert kept["fp32", "torch"] == kept["fp32", "ours"]
    assert kept[precision, "torch"] == kept[precision, "ours"] < 0.7 * kept["fp32", "torch"]


def test_fp16_trains_and_ours_is_torchs_in_every_bit():
    cases = {
        (method, library, micro): Case(
            recipe_of(method, library, precision="fp16", micro_batches=micro)
        )
        for method in WHOLE_WEIGHTS for library in LIBRARIES for micro in (1, 3)
    }  # fmt: skip
    found = run_all([each for case in cases.values() for each in (case, case.again())])
    runs = dict(zip(cases, zip(found[::2], found[1::2], strict=True), strict=True))
    for (method, library, micro), (plain, again) in runs.items():
        loss, _ = gaps(cases[method, library, micro], plain)
        assert 0 < loss < FP16_LIMIT
        assert same(plain, again)
        assert same(plain, runs[method, "torch", micro][0])


@pytest.mark.parametrize("library", LIBRARIES)
def test_fp16_gradients_are_scaled_until_the_step(library):
    tokens_BT, targets_BT = batch_for(CONFIG, 4)
    norms = {}
    for precision in ("fp32", "fp16"):
        system = alone(precision, library)
        loss = system.backward(tokens_BT, targets_BT, True)
        gradients = [each.grad for each in system.model.parameters()]
        norms[precision] = nn.utils.get_total_norm(gradients).item()
        assert loss.item() == pytest.approx(5.0, abs=1)  # not scaled
    assert norms["fp16"] / norms["fp32"] == pytest.approx(2**16, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_fp16_is_scaled(precision):
    assert alone(precision).scaler is None and alone(precision, "ours").scaler is None


def steps_from_too_large_a_scale(rank, world_size, library, method):
    """Of each step: its scale, and whether it changed the weights; then the weights."""
    recipe = TrainingRecipe("fp16", method=method, library=library, num_ranks=world_size,
                            batch_size=2)  # fmt: skip
    job = job_of(recipe, CONFIG, num_steps=NUM_STEPS, max_norm=0.1)
    system = system_of(recipe)(build_gpt(CONFIG), rank, world_size, job)
    if library == "ours":
        system.scaler = DynamicScaler(TOO_LARGE)
    else:
        system.scaler = torch.amp.GradScaler("cpu", init_scale=TOO_LARGE)
    steps, after = [], system.whole_parameters()
    for batch in batches(job):
        before = [each.clone() for each in after]
        scale = system.scaler.loss_scale if library == "ours" else system.scaler.get_scale()
        for part in parts_of(batch, rank, world_size, 1):
            system.backward(*part, True)
        system.step()
        after = system.whole_parameters()
        steps.append((scale, not all(map(torch.equal, before, after))))
    return steps, [each.clone() for each in after]


@pytest.mark.parametrize("method", WHOLE_WEIGHTS)
def test_an_overflow_skips_the_step_on_all_ranks_as_torchs_scaler_does(method):
    num_ranks = 1 if method == "single" else 2
    found = [
        each
        for library in LIBRARIES
        for each in run_ranks(steps_from_too_large_a_scale, num_ranks, library, method, quiet=True)
    ]
    steps, weights = found[0]
    for others, other_weights in found[1:]:
        assert others == steps and all(map(torch.equal, weights, other_weights))
    changed = [has_changed for _, has_changed in steps]
    first = changed.index(True)
    assert 2 <= first <= NUM_STEPS - 2 and all(changed[first:])
    assert [scale for scale, _ in steps] == [
        TOO_LARGE / 2 ** min(number, first) for number in range(NUM_STEPS)
    ]


def test_a_skipped_step_leaves_no_gradient_and_no_state():
    system = alone("fp16")
    system.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    batch = batch_for(CONFIG, 4)
    system.backward(*batch, True)
    system.step()
    assert not system.owned()["gradients"] and not system.owned()["optimizer state"]
    clean = alone("fp16")
    for each in (system, clean):
        each.scaler = torch.amp.GradScaler("cpu")
        each.backward(*batch, True)
        each.step()
    assert all(map(torch.equal, system.whole_parameters(), clean.whole_parameters()))


def test_micro_batches_of_a_step_share_one_scale():
    """Three equal micro-batches are one batch three times as large."""
    tokens_BT, targets_BT = batch_for(CONFIG, 4)
    recipe = TrainingRecipe("fp16", batch_size=4, micro_batches=3)
    system = system_of(recipe)(build_gpt(CONFIG), 0, 1, job_of(recipe, CONFIG))
    for place in range(3):
        system.backward(tokens_BT, targets_BT, place == 2)
    once = alone("fp16")
    once.backward(tokens_BT, targets_BT, True)
    pairs = zip(system.model.parameters(), once.model.parameters(), strict=True)
    for parameter, expected in pairs:
        assert (parameter.grad - expected.grad).norm() < 0.01 * expected.grad.norm()


def test_dropout_in_16_bits_runs_again_with_the_same_mask():
    config = replace(CONFIG, dropout=0.3)
    cases = [
        Case(recipe_of("ddp", library, precision=precision), config)
        for library in LIBRARIES for precision in ("bf16", "fp16")
    ]  # fmt: skip
    found = run_all([each for case in cases for each in (case, case.again())])
    for plain, again in zip(found[::2], found[1::2], strict=True):
        assert same(plain, again)
