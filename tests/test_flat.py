"""Flat layouts: padding, shards and views; and which unit a parameter belongs to."""

import pytest
import torch
from torch import nn

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.techniques.flat import FlatLayout, split_into_units


def layout_of(shapes, world_size):
    return FlatLayout(tuple(f"p{i}" for i in range(len(shapes))), tuple(shapes), world_size)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("shapes", [[(3, 2), (5,)], [(1,)], [()], [(2, 0), (4,)], [(2, 3, 4)]])
def test_flatten_and_views_are_inverse_and_padding_is_zero(shapes, world_size):
    layout = layout_of(shapes, world_size)
    tensors = [torch.randn(shape) for shape in shapes]
    flat_P = layout.flatten(tensors, torch.float32)
    values = torch.cat([each.flatten() for each in tensors])
    assert torch.equal(flat_P[: len(values)], values) and layout.num_values == len(values)
    assert not flat_P[len(values) :].any() and layout.sizes == [each.numel() for each in tensors]
    assert 0 <= layout.padded_values - layout.num_values < world_size
    assert layout.padded_values == len(flat_P) == layout.shard_values * world_size
    for view, tensor in zip(layout.views(flat_P), tensors, strict=True):
        assert torch.equal(view, tensor) and view.shape == tensor.shape
        assert view.untyped_storage().data_ptr() == flat_P.untyped_storage().data_ptr()
    shards = [layout.shard(flat_P, rank) for rank in range(world_size)]
    assert torch.equal(torch.cat(shards), flat_P) and {len(s) for s in shards} == {len(shards[0])}


def test_flatten_rounds_and_puts_zeros_for_what_is_missing():
    layout = layout_of([(2,), (3,)], 4)
    flat_P = layout.flatten([None, torch.full((3,), 1 / 3)], torch.bfloat16)
    assert flat_P.dtype == torch.bfloat16 and flat_P.tolist() == [
        0, 0, *[0.333984375] * 3, 0, 0, 0,
    ]  # fmt: skip
    meta = layout.flatten([None, None], torch.float32, torch.device("meta"))
    assert meta.device.type == "meta" and len(meta) == 8
    kept = torch.ones(3, requires_grad=True)
    assert not layout.flatten([None, kept], torch.float32).requires_grad
    with pytest.raises(ValueError):
        layout.flatten([None], torch.float32)


def names_of(units):
    return [(unit.name, *unit.layout.names) for unit in units]


def test_one_unit_for_each_layer_and_one_for_the_rest():
    model = build_gpt(GPTConfig(2, 2, 8, 4, 16))
    units = split_into_units(model, model.blocks, 3)
    assert [unit.name for unit in units] == ["blocks.0", "blocks.1", "root"]
    assert [unit.module for unit in units] == [*model.blocks, model]
    assert names_of(units)[2] == (
        "root", "token_embedding.weight", "position_embedding.weight",
        "final_norm.weight", "final_norm.bias", "output.weight",
    )  # fmt: skip
    found = [parameter for unit in units for parameter in unit.parameters]
    assert len(found) == len(set(found)) and set(found) == set(model.parameters())
    named = dict(model.named_parameters())
    for unit in units:
        for name, shape, each in zip(
            unit.layout.names, unit.layout.shapes, unit.parameters, strict=True
        ):
            assert named[name] is each and tuple(each.shape) == shape


def test_the_layers_order_is_the_callers():
    model = build_gpt(GPTConfig(3, 2, 8, 4, 16))
    units = split_into_units(model, [model.blocks[2], model.blocks[0]], 2)
    assert [unit.name for unit in units] == ["blocks.2", "blocks.0", "root"]
    assert any(name.startswith("blocks.1.") for name in units[2].layout.names)
    assert [unit.name for unit in split_into_units(model, [], 2)] == ["root"]
    assert [unit.name for unit in split_into_units(model, [model], 2)] == ["root"]


def test_what_two_share_belongs_to_the_root():
    model = nn.Module()
    model.blocks = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(3))
    model.blocks[1][0].weight = model.blocks[0][0].weight  # a weight of two layers
    model.blocks[2][1] = model.blocks[0][1]  # a part of two layers
    model.head = nn.Linear(2, 2)
    model.head.bias = model.blocks[1][1].bias  # a layer and the rest
    units = {unit.name: unit.layout.names for unit in split_into_units(model, model.blocks, 2)}
    assert units == {
        "blocks.0": ("blocks.0.0.bias",),
        "blocks.1": ("blocks.1.0.bias", "blocks.1.1.weight"),
        "blocks.2": ("blocks.2.0.weight", "blocks.2.0.bias"),
        "root": (
            "blocks.0.0.weight", "blocks.0.1.weight", "blocks.0.1.bias", "blocks.1.1.bias",
            "head.weight",
        ),
    }  # fmt: skip


def test_frozen_parameters_make_units_of_their_own():
    model = build_gpt(GPTConfig(2, 2, 8, 4, 16))
    model.blocks[0].requires_grad_(False)
    model.blocks[1].attention.requires_grad_(False)
    model.token_embedding.requires_grad_(False)
    trained = split_into_units(model, model.blocks, 2)
    frozen = split_into_units(model, model.blocks, 2, is_frozen=True)
    assert [unit.name for unit in trained] == ["blocks.1", "root"]
    assert [unit.name for unit in frozen] == ["blocks.0", "blocks.1", "root"]
    assert frozen[2].layout.names == ("token_embedding.weight",)
    mine = {parameter for unit in trained for parameter in unit.parameters}
    others = {parameter for unit in frozen for parameter in unit.parameters}
    assert not mine & others and mine | others == set(model.parameters())


def test_what_cannot_be_split_is_refused():
    model = build_gpt(GPTConfig(1, 2, 8, 4, 16))
    with pytest.raises(ValueError, match="world_size must be at least 1, not 0"):
        split_into_units(model, model.blocks, 0)
    with pytest.raises(ValueError, match="pass its own modules"):
        split_into_units(model, [nn.Linear(2, 2)], 2)
    assert split_into_units(model.requires_grad_(False), model.blocks, 2) == []
