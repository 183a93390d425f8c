"""Stochastic rounding: right on average, never beside a value, the same from the same generator."""

import itertools
import math

import torch

from tests.format_values import (
    assert_same_bits,
    by_name,
    every_value,
    small,
)
from utils.techniques.formats import (
    BF16,
    E5M2,
    round_to,
    spacing_at,
    stochastic_round_to,
)


@by_name
def test_stochastic_rounding_is_right_on_average_and_picks_a_neighbour(format):
    generator = torch.Generator().manual_seed(1)
    count, quarter = 40_000, 0.25
    for base, sign in itertools.product((1.0, 0.0), (1, -1)):  # normal, and below all values
        spacing = spacing_at(base, format).item()
        x = torch.full((count,), sign * (base + quarter * spacing), dtype=torch.float64)
        kept = stochastic_round_to(x, format, generator).double()
        assert set(kept.abs().unique().tolist()) == {base, base + spacing}
        sigma = spacing * math.sqrt(quarter * (1 - quarter) / count)
        assert abs(kept.mean() - x[0]) < 4 * sigma
    assert round_to(1 + quarter * format.epsilon, format) == 1  # while the nearest is always one


@small
def test_stochastic_rounding_never_moves_a_value_of_the_format(format):
    values = every_value(format)
    assert_same_bits(stochastic_round_to(values, format), round_to(values, format), values)


@by_name
def test_stochastic_rounding_above_the_largest_value_is_nearest_rounding(format):
    x = torch.tensor([1.0001, 1.5, 1e9, math.inf]).double() * format.largest
    x = torch.cat([x, -x])
    assert torch.equal(stochastic_round_to(x, format), round_to(x, format))


def test_updates_that_vanish_arrive_with_stochastic_rounding():
    generator = torch.Generator().manual_seed(2)
    update, steps, copies = 1e-3, 300, 100  # a quarter of bf16's half spacing at 1
    nearest = stochastic = torch.ones(copies)
    for _ in range(steps):
        nearest = round_to(nearest + update, BF16)
        stochastic = stochastic_round_to(stochastic + update, BF16, generator)
    assert (nearest == 1).all()
    sigma = BF16.epsilon * math.sqrt(steps / 4 / copies)  # each step has at most this variance
    assert 4 * sigma < 0.1 * update * steps
    assert abs(stochastic.mean() - (1 + update * steps)) < 4 * sigma


def test_the_same_generator_gives_the_same_rounding():
    x = torch.linspace(0, 1, 1000)
    first, again, other = (
        stochastic_round_to(x, E5M2, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
