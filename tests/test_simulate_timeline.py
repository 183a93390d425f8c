"""The timeline's laws, on cases worked out by hand and on hundreds of random task lists."""

import random

import pytest

from utils.simulate.timeline import COMMUNICATION, COMPUTE, Task, simulate


def random_tasks(seed):
    """Up to 40 tasks on two or three streams, each waiting for up to three earlier ones."""
    draw = random.Random(seed)
    streams = [COMPUTE, COMMUNICATION, "copies"][: draw.choice((2, 3))]
    tasks = []
    for number in range(draw.randint(1, 40)):
        names = [task.name for task in tasks]
        after = tuple(draw.sample(names, min(len(names), draw.randint(0, 3))))
        seconds = draw.choice((0.0, draw.random(), 3 * draw.random()))
        tasks.append(Task(f"task {number}", draw.choice(streams), seconds, after))
    return tasks


SEEDS = range(200)


def test_a_task_starts_exactly_when_its_stream_is_free_and_its_waits_are_over():
    for seed in SEEDS:
        timeline = simulate(random_tasks(seed))
        ends = {span.task.name: span.end_s for span in timeline.spans}
        for stream in (COMPUTE, COMMUNICATION, "copies"):
            free_s = 0.0
            for span in timeline.on(stream):
                waits = [ends[name] for name in span.task.after]
                assert span.start_s == max(free_s, *waits, 0.0)
                assert span.end_s == span.start_s + span.task.seconds
                free_s = span.end_s


def test_time_is_conserved():
    for seed in SEEDS:
        timeline = simulate(random_tasks(seed))
        busiest = max(timeline.busy_s(stream) for stream in (COMPUTE, COMMUNICATION, "copies"))
        assert timeline.total_s >= busiest * (1 - 1e-12)
        assert timeline.total_s <= sum(span.task.seconds for span in timeline.spans) * (1 + 1e-12)
        assert timeline.exposed_s == pytest.approx(timeline.total_s - timeline.compute_s, abs=1e-12)
        assert 0 <= timeline.efficiency <= 1


def test_while_compute_waits_another_stream_works():
    for seed in SEEDS:
        timeline = simulate(random_tasks(seed))
        others = [span for span in timeline.spans if span.task.stream != COMPUTE]
        for start_s, end_s in timeline.gaps():
            inside = [s for s in others if s.end_s > start_s and s.start_s < end_s]
            covered = start_s
            for span in sorted(inside, key=lambda span: span.start_s):
                assert span.start_s <= covered
                covered = max(covered, span.end_s)
            assert covered >= end_s


def test_a_longer_task_never_shortens_the_step():
    for seed in SEEDS:
        tasks = random_tasks(seed)
        before_s = simulate(tasks).total_s
        longer = random.Random(seed).randrange(len(tasks))
        old = tasks[longer]
        tasks[longer] = Task(old.name, old.stream, old.seconds + 1, old.after)
        assert simulate(tasks).total_s >= before_s


def test_two_streams_by_hand():
    timeline = simulate(
        [
            Task("a", COMPUTE, 2.0),
            Task("send a", COMMUNICATION, 5.0, ("a",)),
            Task("b", COMPUTE, 1.0),
            Task("send b", COMMUNICATION, 1.0, ("b",)),
            Task("c", COMPUTE, 0.5, ("send a",)),
        ]
    )
    times = {span.task.name: (span.start_s, span.end_s) for span in timeline.spans}
    assert times == {
        "a": (0, 2), "send a": (2, 7), "b": (2, 3), "send b": (7, 8), "c": (7, 7.5),
    }  # fmt: skip
    assert timeline.gaps() == [(3.0, 7.0), (7.5, 8.0)]
    assert (timeline.total_s, timeline.compute_s, timeline.exposed_s) == (8.0, 3.5, 4.5)
    assert timeline.gaps(COMMUNICATION) == [(0.0, 2.0)]
    assert timeline.span("b").end_s == 3.0


def test_a_gather_with_two_buffers_is_one_more_wait():
    """Gather, compute, free: layer i may be gathered into the buffer of layer i - 2."""
    tasks = []
    for layer in range(4):
        free = (f"compute {layer - 2}",) if layer >= 2 else ()
        tasks.append(Task(f"gather {layer}", COMMUNICATION, 1.0, free))
        tasks.append(Task(f"compute {layer}", COMPUTE, 3.0, (f"gather {layer}",)))
    timeline = simulate(tasks)
    starts = [timeline.span(f"gather {layer}").start_s for layer in range(4)]
    assert starts == [0.0, 1.0, 4.0, 7.0]  # the third waits for the first layer's buffer
    assert (timeline.total_s, timeline.exposed_s) == (13.0, 1.0)  # only the first gather shows


def test_nothing_takes_no_time():
    timeline = simulate([])
    assert (timeline.total_s, timeline.exposed_s, timeline.efficiency) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([Task("a", COMPUTE, 1.0), Task("a", COMPUTE, 1.0)], "Two tasks have the name 'a'"),
        ([Task("a", COMPUTE, -1.0)], "takes -1.0 seconds"),
        ([Task("a", COMPUTE, float("nan"))], "takes nan seconds"),
        ([Task("a", COMPUTE, 1.0, ("b",)), Task("b", COMPUTE, 1.0)], "waits for 'b'"),
    ],
)
def test_impossible_tasks_are_refused_in_one_sentence(tasks, words):
    with pytest.raises(ValueError, match=words):
        simulate(tasks)
