"""Judge of lab 04, the random state: four streams, replayed once, twice, nested and interrupted."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require

Draws = dict[str, list[float]]  # by stream
PYTHON, DEFAULT, FIRST, SECOND = (
    "Python's random", "torch's default generator", "the first generator", "the second generator",
)  # fmt: skip
NUM_SETS = 8


class Streams:
    """Four streams of random numbers from a fixed start; `draw()` takes one set from each."""

    def __init__(self) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in (13, 14)]
        random.seed(11)
        torch.random.default_generator.manual_seed(12)

    def draw(self) -> Draws:
        """Three numbers of each stream."""
        own = [torch.rand(3, generator=generator).tolist() for generator in self.generators]
        python = [random.random() for _ in range(3)]
        return {PYTHON: python, DEFAULT: torch.rand(3).tolist(), FIRST: own[0], SECOND: own[1]}


Replay = Callable[[], AbstractContextManager]


@exercise(
    "04.1",
    "the draws that torch forgets",
    hints=[
        "One helper that reads all states, one that writes them. The block writes the noted ones "
        "and, when it ends in whatever way, those that it found when it began.",
        "random.getstate() and generator.get_state(), for torch.default_generator too. replay is "
        "a function decorated with @contextlib.contextmanager: read, write the noted states, "
        "`try: yield`, and write back in `finally:`.",
    ],
    lab="lab_04_checkpoint_by_hand",
)
def judge_replay(answer: Callable) -> str:
    """Draws inside and outside of blocks, compared with streams that nobody touched."""
    require_function(answer)
    plain = Streams()
    truth = [plain.draw() for _ in range(NUM_SETS)]
    _require_first_draws(answer, truth)
    _require_blocks(answer, truth)
    _require_exception(answer, truth)
    _require_nesting(answer, truth)
    return f"{len(truth[0])} streams draw again what they drew, and none notices outside."


def _noted(answer: Callable, streams: Streams) -> Replay:
    replay = answer(*streams.generators)
    likely = "return the function `replay`: each call of it gives a fresh block"
    is_function = callable(replay) and not hasattr(replay, "__enter__")
    require(is_function, "The result is not a function that gives blocks", likely=likely)
    return replay


@contextmanager
def _block(replay: Replay) -> Iterator[None]:
    """One `with replay():`, with a sentence where it is none."""
    block = replay()
    likely = "decorate replay with @contextlib.contextmanager"
    require(hasattr(block, "__enter__"), "replay() gives no block for `with`", got=block,
            likely=likely)
    with block:
        yield


def _require(got: Draws, truth: list[Draws], place: int, when: str, likely: dict) -> None:
    """Every stream drew the set at `place`; else name what the set that came instead means."""
    came = {
        stream: next((k for k, each in enumerate(truth) if each[stream] == numbers), None)
        for stream, numbers in got.items()
    }
    for stream, number in came.items():
        if number != place:
            own = "generators" if stream in (FIRST, SECOND) else stream
            why = likely.get((number, own), likely.get(number, ""))
            if set(came.values()) == {number}:
                why = likely.get((number, "all"), why)
            raise NotYet(f"{when}, {stream} draws other numbers than it should", likely=why)


def _require_first_draws(answer: Callable, truth: list[Draws]) -> None:
    streams = Streams()
    _noted(answer, streams)
    likely = {None: "seeding makes every layer and step draw alike: read the state, change nothing"}
    _require(streams.draw(), truth, 0, "After noting", likely)


def _require_blocks(answer: Callable, truth: list[Draws]) -> None:
    """Two blocks; the second one draws more. Noted at set 2, begun when six sets are gone."""
    streams = Streams()
    for _ in range(2):
        streams.draw()
    replay = _noted(answer, streams)
    for _ in range(4):
        streams.draw()
    inside = {
        6: "this stream goes on where it was: its state is not brought back",
        (6, "all"): "nothing is brought back: note the states when make_replay is called, not when "
        "the block begins, and write them when it begins",
        (6, PYTHON): "Python's random has a state of its own: random.getstate()",
        (6, "generators"): "a torch.Generator has a state of its own: generator.get_state()",
        None: "seeding is not replaying: bring back the very state that was noted",
    }
    with _block(replay):
        _require(streams.draw(), truth, 2, "In the block", inside)
    outside = {
        2: "the block leaves the noted state behind; outside goes on where it was before the block",
        3: "the block's draws count outside: bring back the state from before the block",
    }
    _require(streams.draw(), truth, 6, "After the block", outside)
    with _used_up(), _block(replay):
        again = {k: "the noted state is used up or overwritten" for k in (3, 6, 7)}
        _require(streams.draw(), truth, 2, "In a second block", again)
        _require(streams.draw(), truth, 3, "Later in a second block", again)
        torch.random.default_generator.manual_seed(5)
        random.seed(5)
    _require(streams.draw(), truth, 7, "After a second block, which seeds", outside)


@contextmanager
def _used_up() -> Iterator[None]:
    """contextlib's own error when one block is entered twice, in plainer words."""
    try:
        yield
    except (AttributeError, RuntimeError) as error:
        if "generator didn't yield" in str(error) or "'args'" in str(error):
            likely = "replay returns the same block each time; make a fresh one in every call"
            raise NotYet("A second `with replay():` is refused", likely=likely) from None
        raise


def _require_exception(answer: Callable, truth: list[Draws]) -> None:
    streams = Streams()
    replay = _noted(answer, streams)
    streams.draw()
    try:
        with _block(replay):
            streams.draw()
            streams.draw()
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    else:
        raise NotYet("An exception in the block was swallowed", likely="let it pass")
    likely = "write the states back in `finally:`"
    _require(streams.draw(), truth, 1, "After an exception in the block", {2: likely, 0: likely})


def _require_nesting(answer: Callable, truth: list[Draws]) -> None:
    """Two states, one block inside the other, and a block inside itself."""
    streams = Streams()
    early = _noted(answer, streams)
    for _ in range(3):
        streams.draw()
    late = _noted(answer, streams)
    likely = dict.fromkeys((0, 2, 3, 4), "each block needs its own variable for what it found")
    with _block(early):
        _require(streams.draw(), truth, 0, "In the outer of two blocks", likely)
        with _block(late):
            _require(streams.draw(), truth, 3, "In the inner of two blocks", likely)
        _require(streams.draw(), truth, 1, "Between the ends of two blocks", likely)
        with _block(early):
            _require(streams.draw(), truth, 0, "In a block within itself", likely)
        _require(streams.draw(), truth, 2, "After a block within itself", likely)
    _require(streams.draw(), truth, 3, "After both blocks", likely)
