"""The order in which backward hands over units, and what it refuses to follow."""

import pytest
import torch
from torch import nn

from tests.zero_runs import CONFIG
from utils.model import build_gpt
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.flat import split_into_units
from utils.techniques.segments import checkpointed, segments
from utils.techniques.watch import BackwardWatch, tensors_in

TOKENS_BT = torch.zeros(1, 7, dtype=torch.long)
ROOT = 3


def watched(model, layers=None):
    """A model and the list of what its watch reports."""
    log = []
    units = split_into_units(model, model.blocks if layers is None else layers, 2)

    def ready(index):
        whole = all(p.grad is not None for p in units[index].parameters)
        log.append((index, "whole" if whole else "in part"))

    watch = BackwardWatch(
        model, units, ready, lambda: log.append("begin"), lambda: log.append("end")
    )
    return watch, log


def expected(*indices):
    return ["begin", *((index, "whole") for index in indices), "end"]


def test_the_last_layer_first_the_root_last():
    model = build_gpt(CONFIG)
    watch, log = watched(model)
    for _ in range(2):
        model(TOKENS_BT).sum().backward()
        assert log == expected(2, 1, 0, ROOT) and not watch.in_backward
        log.clear()


def test_a_unit_is_handed_over_as_soon_as_it_is_complete():
    model = build_gpt(CONFIG)
    _, log = watched(model)
    for place in (1, 2):
        model.blocks[place].register_full_backward_pre_hook(
            lambda *_, place=place: log.append(f"backward {place}")
        )
    model(TOKENS_BT).sum().backward()
    parts = [(2, "whole"), "backward 1", (1, "whole"), (0, "whole"), (ROOT, "whole")]
    assert log == ["begin", "backward 2", *parts, "end"]


@pytest.mark.parametrize("way", [checkpoint_by_hooks, checkpoint_by_function])
def test_the_same_with_checkpoints_also_around_the_model(way):
    model = build_gpt(CONFIG)
    watch, log = watched(model)
    with checkpointed(model, segments([1, 2]), way):
        model(TOKENS_BT).sum().backward()
    way(model, TOKENS_BT).sum().backward()
    assert log == expected(2, 1, 0, ROOT) * 2 and not watch.in_backward


def test_two_forwards_are_one_backward_and_evaluation_is_none():
    model = build_gpt(CONFIG)
    _, log = watched(model)
    first = model(TOKENS_BT)
    with torch.no_grad():
        model(TOKENS_BT)
    (first + model(TOKENS_BT)).sum().backward()
    assert log == expected(2, 1, 0, ROOT)


def test_units_wait_for_those_before_them_and_unused_ones_for_the_end():
    model = build_gpt(CONFIG)
    _, log = watched(model)
    model.blocks[2].forward = lambda x: x  # uses nothing
    model(TOKENS_BT).sum().backward()
    assert log == ["begin", (2, "in part"), (1, "whole"), (0, "whole"), (ROOT, "whole"), "end"]


def test_frozen_units_and_models_without_a_root_are_no_exception():
    model = build_gpt(CONFIG)
    model.requires_grad_(False).blocks[:2].requires_grad_(True)
    _, log = watched(model)
    model(TOKENS_BT).sum().backward()
    assert log == expected(1, 0)


def test_a_shared_parameter_may_arrive_in_two_parts():
    """Each `checkpoint_by_function` adds its part in a backward of its own; the root waits."""
    model = build_gpt(CONFIG)
    model.blocks[2].attention_norm = model.blocks[0].attention_norm  # the last to arrive
    model.token_embedding.requires_grad_(False)
    model.position_embedding.requires_grad_(False)
    _, log = watched(model)
    with checkpointed(model, segments([1, 1, 1]), checkpoint_by_function):
        model(TOKENS_BT).sum().backward()
    assert log == expected(2, 1, 0, ROOT)


def test_a_layer_whose_gradient_comes_twice_is_refused():
    model = build_gpt(CONFIG)
    watched(model)
    twice = model.blocks[1].forward
    model.blocks[1].forward = lambda x: checkpoint_by_function(
        twice, checkpoint_by_function(twice, x)
    )
    with pytest.raises(RuntimeError, match="gradients twice in one backward"):
        model(TOKENS_BT).sum().backward()


def test_a_backward_that_does_not_begin_at_the_result_is_refused():
    model, hidden = build_gpt(CONFIG), []
    watched(model)
    model.blocks[1].register_forward_hook(lambda module, args, result: hidden.append(result))
    model(TOKENS_BT)
    with pytest.raises(RuntimeError, match="did not begin at the model's result"):
        hidden[0].sum().backward()


def test_a_backward_that_an_error_has_ended_is_remembered():
    model = build_gpt(CONFIG)
    watch, log = watched(model)
    bad = model.blocks[1].register_full_backward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(TOKENS_BT).sum().backward()
    bad.remove()
    assert log == ["begin", (2, "whole")] and watch.in_backward and not watch.is_incomplete
    log.clear()
    result = model(TOKENS_BT)
    assert watch.is_incomplete and not watch.in_backward
    result.sum().backward()
    assert log == expected(2, 1, 0, ROOT) and watch.is_incomplete  # until its user says otherwise


class Answer:
    """A result in which nobody can find the tensors."""


def test_tensors_are_found_in_nested_results_or_missed():
    one = torch.zeros(1)
    assert tensors_in({"a": (one, [None, 3]), "b": one}) == [one, one]
    with pytest.raises(TypeError, match="an object of type Answer, in which no tensor is"):
        tensors_in(Answer())
    with torch.no_grad():
        assert tensors_in(Answer()) == []
    model = nn.Sequential(nn.Linear(1, 1))
    watched(model, [model[0]])
    model.register_forward_hook(lambda *_: Answer())
    watched(model, [model[0]])
    with pytest.raises(TypeError, match="Answer"):
        model(torch.zeros(1, 1))
