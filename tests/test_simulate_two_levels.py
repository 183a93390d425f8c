"""Collectives in phases, inside nodes and between them, against the same played as messages."""

import pytest

from utils.simulate.collectives import collective_cost
from utils.simulate.links import Cluster, Link
from utils.simulate.messages import at_once, count, play, renamed, schedule
from utils.simulate.traffic import ALGORITHMS, COLLECTIVES


def value(rank, block):
    """A number of its own for each rank and block; sums tell which ranks were added."""
    return (1 << rank) + (block << 100)


def total(ranks, block):
    return sum(value(rank, block) for rank in range(ranks))


def two_levels(collective, nodes, gpus, inside, between):
    """The hierarchical schedule as messages; rank = node x gpus + place, see the block numbers."""
    place_blocks = [range(j * nodes, (j + 1) * nodes) for j in range(gpus)]
    node_ranks = [[i * gpus + j for j in range(gpus)] for i in range(nodes)]

    def in_nodes(name, blocks=place_blocks):
        steps = schedule(name, inside, gpus)
        return at_once([renamed(steps, ranks, blocks) for ranks in node_ranks])

    def across(name):
        steps = schedule(name, between, nodes)
        each = []
        for j in range(gpus):
            ranks = [i * gpus + j for i in range(nodes)]
            each.append(renamed(steps, ranks, [[j * nodes + i] for i in range(nodes)]))
        return at_once(each)

    if collective == "all-reduce":
        return in_nodes("reduce-scatter") + across("all-reduce") + in_nodes("all-gather")
    if collective == "reduce-scatter":
        return in_nodes("reduce-scatter") + across("reduce-scatter")
    if collective == "all-gather":
        return across("all-gather") + in_nodes("all-gather")
    if collective == "broadcast":
        whole = [range(i * gpus, (i + 1) * gpus) for i in range(nodes)]
        leaders = [i * gpus for i in range(nodes)]
        return renamed(schedule("broadcast", between, nodes), leaders, whole) + in_nodes(
            "broadcast"
        )
    return _two_level_mail(nodes, gpus, inside, between)


def _two_level_mail(nodes, gpus, inside, between):
    size = nodes * gpus
    in_node = []
    for i in range(nodes):
        blocks = [
            [(i * gpus + a) * size + k * gpus + b for k in range(nodes)]
            for a in range(gpus)
            for b in range(gpus)
        ]
        ranks = [i * gpus + j for j in range(gpus)]
        in_node.append(renamed(schedule("all-to-all", inside, gpus), ranks, blocks))
    across = []
    for b in range(gpus):
        blocks = [
            [(i * gpus + a) * size + k * gpus + b for a in range(gpus)]
            for i in range(nodes)
            for k in range(nodes)
        ]
        ranks = [i * gpus + b for i in range(nodes)]
        across.append(renamed(schedule("all-to-all", between, nodes), ranks, blocks))
    return at_once(in_node) + at_once(across)


SHAPES = [(1, 4), (4, 1), (2, 2), (3, 4), (5, 3), (4, 8)]


@pytest.mark.parametrize(("nodes", "gpus"), SHAPES)
@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("latency_s", [0.0, 1.0])  # the ring is cheaper, then the tree
def test_phases_count_what_two_levels_of_messages_move(collective, nodes, gpus, latency_s):
    cluster = Cluster(nodes, gpus, Link(latency_s, 50.0), Link(latency_s, 5.0))
    cost = collective_cost(collective, 120.0, cluster, "hierarchical")
    names = {phase.link: phase.algorithm for phase in cost.phases}
    inside, between = (names.get(link, "ring") for link in (cluster.inside, cluster.between))
    played = count(two_levels(collective, nodes, gpus, inside, between), 120.0 / (nodes * gpus))
    assert cost.num_steps == played.num_steps
    assert sum(phase.traffic.path_bytes for phase in cost.phases) == pytest.approx(
        played.path_bytes
    )
    assert cost.sent_bytes == pytest.approx(played.sent_bytes)


@pytest.mark.parametrize(("nodes", "gpus"), SHAPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_levels_of_messages_do_what_the_collective_promises(nodes, gpus, algorithm):
    size = nodes * gpus
    blocks, ranks = range(size), range(size)
    owner_of = {j * nodes + i: i * gpus + j for i in range(nodes) for j in range(gpus)}
    own = [{block: value(rank, block) for block in blocks} for rank in ranks]
    sums = {block: total(size, block) for block in blocks}
    reduced = play(two_levels("all-reduce", nodes, gpus, algorithm, algorithm), own)
    assert all(state == sums for state in reduced)
    scattered = play(two_levels("reduce-scatter", nodes, gpus, algorithm, algorithm), own)
    assert all(scattered[rank][block] == sums[block] for block, rank in owner_of.items())
    one_each = [{b: value(r, b) for b, owner in owner_of.items() if owner == r} for r in ranks]
    gathered = play(two_levels("all-gather", nodes, gpus, algorithm, algorithm), one_each)
    assert all({*state} == {*blocks} for state in gathered)
    spread = play(
        two_levels("broadcast", nodes, gpus, algorithm, algorithm), [own[0], *[{}] * (size - 1)]
    )
    assert spread == [own[0]] * size
    mail = [{r * size + d: value(r, d) for d in ranks} for r in ranks]
    received = play(two_levels("all-to-all", nodes, gpus, algorithm, algorithm), mail)
    for rank, state in enumerate(received):
        assert {s * size + rank: value(s, rank) for s in ranks}.items() <= state.items()
