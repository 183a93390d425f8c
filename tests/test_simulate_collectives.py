"""Every formula for a collective against the same collective played message by message."""

import random

import pytest

from utils.simulate.collectives import SCHEDULES, collective_cost, collective_seconds
from utils.simulate.links import LINKS, Cluster, Link, cluster_of
from utils.simulate.messages import Message, count, play, schedule
from utils.simulate.traffic import ALGORITHMS, COLLECTIVES, NO_TRAFFIC, traffic

RANKS = range(1, 18)
FAST, SLOW = Link(1e-6, 100.0), Link(1e-3, 10.0)


def value(rank, block):
    """A number of its own for each rank and block; sums tell which ranks were added."""
    return (1 << rank) + (block << 100)


def total(ranks, block):
    return sum(value(rank, block) for rank in range(ranks))


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_formulas_count_what_the_messages_move(collective, algorithm, ranks):
    num_blocks = ranks  # what a rank holds of an all-to-all, and the whole tensor of the others
    played = count(schedule(collective, algorithm, ranks), block_bytes=60.0 / num_blocks)
    formula = traffic(collective, algorithm, 60.0, ranks)
    assert formula.num_steps == played.num_steps
    assert formula.path_bytes == pytest.approx(played.path_bytes, rel=1e-12)
    assert formula.sent_bytes == pytest.approx(played.sent_bytes, rel=1e-12)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_messages_do_what_the_collective_promises(algorithm, ranks):
    own = [{block: value(rank, block) for block in range(ranks)} for rank in range(ranks)]
    reduced = play(schedule("all-reduce", algorithm, ranks), own)
    assert all(state == {b: total(ranks, b) for b in range(ranks)} for state in reduced)
    scattered = play(schedule("reduce-scatter", algorithm, ranks), own)
    assert [state[rank] for rank, state in enumerate(scattered)] == [
        total(ranks, block) for block in range(ranks)
    ]
    one_each = [{rank: value(rank, rank)} for rank in range(ranks)]
    gathered = play(schedule("all-gather", algorithm, ranks), one_each)
    assert all(state == {b: value(b, b) for b in range(ranks)} for state in gathered)
    root_only = [own[0], *({} for _ in range(ranks - 1))]
    assert play(schedule("broadcast", algorithm, ranks), root_only) == [own[0]] * ranks
    mail = [{r * ranks + d: value(r, d) for d in range(ranks)} for r in range(ranks)]
    received = play(schedule("all-to-all", algorithm, ranks), mail)
    for rank, state in enumerate(received):
        wanted = {s * ranks + rank: value(s, rank) for s in range(ranks)}
        assert wanted.items() <= state.items()


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_rank_sends_two_messages_in_one_step(collective, algorithm, ranks):
    for step in schedule(collective, algorithm, ranks):
        sources = [message.source for message in step]
        receivers = [message.destination for message in step]
        assert len({*sources}) == len(sources) and len({*receivers}) == len(receivers)


def test_a_message_without_its_block_is_noticed():
    with pytest.raises(ValueError, match="rank 0 sends block 3, which it does not hold"):
        play([[Message(0, 1, (3,))]], [{}, {}])


def test_gloo_sends_what_the_ring_says():
    """Bytes written by each rank, read from the kernel, in units of the tensor."""
    measured = {("all-reduce", 2): 1.0, ("all-reduce", 4): 1.5, ("all-gather", 4): 0.75}
    for (collective, ranks), sent in measured.items():
        assert traffic(collective, "ring", 1.0, ranks).sent_bytes == sent
    assert traffic("broadcast", "tree", 1.0, 4).sent_bytes == 2.0


def test_an_all_reduce_in_two_nodes_of_two_by_hand():
    cluster = Cluster(2, 2, FAST, SLOW)
    cost = collective_cost("all-reduce", 400.0, cluster, "hierarchical")
    inside = 1e-6 + 200 / 100  # half of the tensor, one step
    between = 2 * 1e-3 + 2 * 100 / 10  # half of a half, twice
    assert cost.seconds == pytest.approx(inside + between + inside)
    flat = collective_cost("all-reduce", 400.0, cluster, "ring")
    assert flat.seconds == pytest.approx(6 * 1e-3 + 600 / 10)  # all on the slow link
    assert collective_cost("all-reduce", 400.0, cluster) == cost


def test_small_tensors_take_the_tree_and_large_ones_the_fewest_slow_bytes():
    cluster = cluster_of(64)
    (only,) = collective_cost("all-reduce", 4.0, cluster_of(8)).phases
    assert only.algorithm == "tree"
    large = collective_cost("all-reduce", 1e9, cluster)
    assert [phase.num_ranks for phase in large.phases] == [8, 8, 8]


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_one_gpu_sends_nothing(collective):
    alone = cluster_of(1)
    for name in SCHEDULES:
        cost = collective_cost(collective, 1e9, alone, name)
        assert (cost.seconds, cost.sent_bytes, cost.num_steps) == (0, 0, 0)
    assert traffic(collective, "ring", 1e9, 1) == NO_TRAFFIC


def test_costs_grow_with_size_latency_and_slowness():
    draw = random.Random(0)
    for _ in range(300):
        collective = draw.choice(COLLECTIVES)
        shape = (draw.randint(1, 9), draw.randint(1, 9))
        inside, between = (
            Link(10 ** draw.uniform(-6, -3), 10 ** draw.uniform(8, 12)) for _ in range(2)
        )
        size = 10 ** draw.uniform(0, 10)
        name = draw.choice(SCHEDULES)
        seconds = collective_seconds(collective, size, Cluster(*shape, inside, between), name)
        slower = Link(between.latency_s * 2, between.bytes_per_s / 2)
        worse = collective_seconds(collective, size, Cluster(*shape, inside, slower), name)
        larger = collective_seconds(collective, 2 * size, Cluster(*shape, inside, between), name)
        best = collective_seconds(collective, size, Cluster(*shape, inside, between))
        assert best <= seconds <= min(worse, larger)


def test_published_links_name_their_source_or_call_it_an_assumption():
    for name, link in LINKS.items():
        assert "README at" in link.source or "assumption" in link.source, name
    assert LINKS["NVLink 4 (H100)"].bytes_per_s == 450e9
    assert LINKS["InfiniBand 400 Gbit/s"].bytes_per_s == 400e9 / 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Link(-1.0, 1.0), "latency is 0 seconds or more"),
        (lambda: Link(0.0, 0.0), "more than 0 bytes"),
        (lambda: FAST.at_share(1.5), r"lies in \(0, 1\]"),
        (lambda: Cluster(0, 8, FAST, SLOW), "num_nodes must be at least 1"),
        (lambda: cluster_of(12), "12 GPUs do not fill nodes of 8"),
        (lambda: cluster_of(0), "gpus_per_node must be at least 1"),
        (lambda: traffic("all-sum", "ring", 1.0, 2), "no collective 'all-sum'"),
        (lambda: traffic("all-reduce", "star", 1.0, 2), "no algorithm 'star'"),
        (lambda: traffic("all-reduce", "ring", -1.0, 2), "at least 1 rank and 0 bytes"),
        (lambda: schedule("all-reduce", "star", 2), "There is no 'star'"),
        (lambda: collective_cost("all-reduce", 1.0, cluster_of(2), "fastest"), "no schedule"),
        (lambda: collective_cost("all-sum", 1.0, cluster_of(2)), "no collective 'all-sum'"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
