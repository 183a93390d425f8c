"""Pictures of collectives: the stripes are those of a real run, and it did what the name says."""

import pytest

from utils.collective_plot import COLLECTIVES, draw_collectives, run_collectives
from utils.plots import new_figure
from utils.ranks import run_ranks

RANKS = range(3)
EVERYONE = set(RANKS)


@pytest.fixture(scope="module")
def by_rank():
    return run_ranks(run_collectives, 3)


def after(by_rank, name):
    return [results[name][1] for results in by_rank]


def test_each_collective_does_what_its_name_says(by_rank):
    none, everywhere = [set()] * 3, [EVERYONE] * 3
    assert after(by_rank, "broadcast") == [[{0}] * 3] * 3
    assert after(by_rank, "reduce") == [everywhere, none, none]
    assert after(by_rank, "all-reduce") == [everywhere] * 3
    assert after(by_rank, "all-gather") == [[{0}, {1}, {2}]] * 3
    assert after(by_rank, "all-to-all") == [[{0}, {1}, {2}]] * 3
    for rank in RANKS:
        expected = [EVERYONE if place == rank else set() for place in RANKS]
        assert after(by_rank, "reduce-scatter")[rank] == expected


def test_a_reduce_scatter_and_an_all_gather_make_an_all_reduce(by_rank):
    for rank in RANKS:
        scattered = after(by_rank, "reduce-scatter")[rank]
        gathered = [after(by_rank, "reduce-scatter")[place][place] for place in RANKS]
        assert scattered[rank] == EVERYONE
        assert gathered == after(by_rank, "all-reduce")[rank]


def test_the_picture_has_one_stripe_for_each_source(by_rank):
    figure = new_figure(9, 4)
    reading = draw_collectives(figure, by_rank)
    assert "Six collectives on 3 ranks" in reading
    assert [axes.get_title(loc="left") for axes in figure.get_axes()] == list(COLLECTIVES)
    all_reduce = figure.get_axes()[list(COLLECTIVES).index("all-reduce")]
    digits = sorted(text.get_text() for text in all_reduce.texts if text.get_text())
    assert len(digits) == 9 + 27  # one stripe a box before, three after
