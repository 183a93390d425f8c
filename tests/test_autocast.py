"""Our autocast against torch's: dtypes of many operations, and a GPT bit for bit."""

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.autocast_operations import (
    BF16,
    DTYPE_PAIRS,
    FP32,
    LABELS,
    OPERATIONS,
    inputs,
    outcome,
)
from tests.helpers import batch_for
from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CPU_RULES, CUDA_RULES

TINY = GPTConfig(2, 2, 32, 16, 64)


@pytest.mark.parametrize("pair", DTYPE_PAIRS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_cpu_rules_give_torchs_dtypes_and_values(name, pair):
    tensors = inputs(*DTYPE_PAIRS[pair])
    with torch.autocast("cpu", BF16):
        theirs = outcome(OPERATIONS[name], tensors)
    with ManualAutocast(CPU_RULES, BF16):
        ours = outcome(OPERATIONS[name], tensors)
    if isinstance(theirs, str):
        # torch sees only the product inside these two, too late for inputs of two dtypes.
        assert ours == theirs or (name in ("multi_dot", "tensordot") and pair == "mixed")
    else:
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_more_than_sixty_operations_really_ran():
    tensors = inputs(FP32, FP32)
    with ManualAutocast():
        ran = [name for name, op in OPERATIONS.items() if not isinstance(outcome(op, tensors), str)]
    assert len(ran) >= 60


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_gpt_is_bit_equal_to_torch_autocast(attention, tied):
    config = replace(TINY, attention=attention, tied_embeddings=tied)
    batch = batch_for(config, 3)
    results = []
    for context in (torch.autocast("cpu", BF16), ManualAutocast(CPU_RULES, BF16)):
        model = build_gpt(config)
        with context:
            logits, loss = model(batch[0]), next_token_loss(model, *batch)
        loss.backward()
        results.append([logits, loss, *(p.grad for p in model.parameters())])
    theirs, ours = results
    assert theirs[0].dtype == BF16 and theirs[1].dtype == FP32
    for a, b in zip(theirs, ours, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_softmax_and_layer_norm_show_how_the_rule_sets_differ():
    x = torch.randn(2, 8, dtype=BF16)
    for rules, expected in ((CPU_RULES, BF16), (CUDA_RULES, FP32)):
        with ManualAutocast(rules, BF16):
            assert x.softmax(-1).dtype == expected
            assert F.layer_norm(x, (8,)).dtype == expected


def test_a_weight_is_cast_once_until_the_outermost_exit():
    layer, x = nn.Linear(4, 4, bias=False), torch.randn(2, 4, dtype=BF16)
    with ManualAutocast() as outer:
        layer(x)
        with ManualAutocast() as inner:
            layer(x)
        layer(x)
        assert (outer.num_casts, inner.num_casts) == (1, 0)
    with ManualAutocast() as again:
        layer(x)
    assert again.num_casts == 1


def test_the_cache_does_not_survive_an_optimizer_step():
    layer, x = nn.Linear(4, 4, bias=False), torch.ones(1, 4)
    with ManualAutocast():
        before = layer(x)
    with torch.no_grad():
        layer.weight.add_(1.0)
    with ManualAutocast():
        after = layer(x)
    assert (after - before).min() > 3


def test_activations_and_inputs_are_not_cached():
    x = torch.randn(4, 4)
    with ManualAutocast() as autocast:
        x @ x
        x @ x
    assert autocast.num_casts == 4


def test_a_weight_used_without_gradients_first_still_gets_its_gradient():
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with ManualAutocast():
        with torch.no_grad():
            layer(x)
        layer(x).float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == FP32


def test_regions_can_be_switched_off_and_on_again():
    a = torch.randn(4, 4)
    with ManualAutocast():
        with ManualAutocast(enabled=False):
            assert (a @ a).dtype == FP32
            with ManualAutocast(low_dtype=torch.float16):
                assert (a @ a).dtype == torch.float16
        assert (a @ a).dtype == BF16
    assert (a @ a).dtype == FP32


def test_integers_and_doubles_are_left_alone():
    with ManualAutocast():
        assert F.linear(torch.ones(2, 2).double(), torch.ones(2, 2).double()).dtype == torch.float64
        assert (torch.ones(2, 2).long() @ torch.ones(2, 2).long()).dtype == torch.int64
        assert F.cross_entropy(torch.randn(4, 4), LABELS).dtype == FP32


def test_a_chosen_dtype_is_respected():
    x = torch.randn(4, 4, dtype=BF16)
    with ManualAutocast(CUDA_RULES):
        assert x.sum(dtype=torch.float64).dtype == torch.float64
        assert x.softmax(-1, torch.float64).dtype == torch.float64


def test_inference_works_and_errors_leave_nothing_behind():
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with torch.inference_mode(), ManualAutocast():
        assert layer(x).dtype == BF16
    with pytest.raises(ZeroDivisionError), ManualAutocast():
        raise ZeroDivisionError
    assert (x @ x.t()).dtype == FP32


def test_another_thread_is_not_affected():
    seen, a = [], torch.randn(4, 4)
    with ManualAutocast():
        thread = threading.Thread(target=lambda: seen.append((a @ a).dtype))
        thread.start()
        thread.join()
    assert seen == [FP32]


def test_what_cannot_work_is_refused_in_words():
    with pytest.raises(ValueError, match="low_dtype must be one of"):
        ManualAutocast(low_dtype=torch.float64)
    x = torch.rand(4)
    with (
        pytest.raises(RuntimeError, match="unsafe in 16 bits"),
        ManualAutocast(CUDA_RULES),
    ):
        F.binary_cross_entropy(x, x)
