"""What lab 09's waits are judged by: steps of YaFSDP without waits, and the earliest safe end.

How it works: a case is the simulator's step of YaFSDP, its `after` entries taken out, with as many
buffers, message streams and seconds as the case says; in one kind a stream of its own also copies
gathered weights away, so that a filling has users on two streams. `waits_of` finds from the
accesses what must be waited for: a use for the filling before it, a filling for the uses of what
it overwrites. Any schedule that is safe at all speeds keeps these, so none of them can end earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from utils.simulate import Access, Layer, Task, Timeline, buffer_accesses, simulate, two_buffers

FILLED, USED = "filled", "used"


@dataclass(frozen=True)
class Case:
    """`seconds`: of a gather, a forward, a backward, a reduction; `grows` makes layers unequal."""

    name: str
    num_layers: int
    seconds: tuple[float, float, float, float]
    zero_stage: int = 3
    weight_buffers: int = 2
    gradient_buffers: int = 2
    has_two_streams: bool = False  # gathers and reductions do not queue behind each other
    grows: float = 0.0
    saves: bool = False  # a stream of its own copies what has been gathered, 2.5 forwards long

    @property
    def layers(self) -> list[Layer]:
        """Layers a, b, c, ..."""
        _, forward_s, backward_s, _ = self.seconds
        sizes = [1 + self.grows * (place % 3) for place in range(self.num_layers)]
        return [Layer(chr(ord("a") + place), forward_s * size, backward_s * size, (1,))
                for place, size in enumerate(sizes)]  # fmt: skip

    @property
    def buffers(self) -> dict[str, int]:
        """How many of each, as the simulator takes them."""
        return {"zero_stage": self.zero_stage, "weight_buffers": self.weight_buffers,
                "gradient_buffers": self.gradient_buffers}  # fmt: skip

    @property
    def accesses(self) -> list[Access]:
        """Which task fills or uses which buffer."""
        accesses = buffer_accesses(self.layers, **self.buffers)
        fillings = [each for each in accesses if self.saves and each.task.startswith("gather")]
        copies = [replace(each, task=_copy_of(each.task), writes=False) for each in fillings]
        return [*accesses, *copies]

    @property
    def tasks(self) -> list[Task]:
        """The step in the order of issue; nobody waits for anybody."""
        gather_s, *_, reduce_s = self.seconds
        tasks = two_buffers(
            self.layers, lambda _: gather_s, lambda _: reduce_s, 1, 1, **self.buffers
        )
        tasks = [replace(task, after=(), stream=self._stream(task)) for task in tasks]
        return [each for task in tasks for each in (task, *self._copies(task))]

    def _copies(self, task: Task) -> list[Task]:
        is_copied = self.saves and task.name.startswith("gather")
        return [Task(_copy_of(task.name), "disk", 2.5 * self.seconds[1])] if is_copied else []

    def _stream(self, task: Task) -> str:
        is_message = self.has_two_streams and task.stream != "compute"
        return task.name.split()[0] if is_message else task.stream


def _copy_of(gather: str) -> str:
    return gather.replace("gather", "save")


class Wait(NamedTuple):
    """`task` waits for `needs`, which filled what it uses, or used what it overwrites."""

    task: str
    needs: str
    kind: str
    buffer: str


def waits_of(tasks: Sequence[Task], accesses: Sequence[Access]) -> list[Wait]:
    """Everything that must be waited for."""
    waits: list[Wait] = []
    filled: dict[str, str] = {}
    used: dict[str, list[str]] = {}
    for task in tasks:
        for access in accesses:
            if access.task != task.name:
                continue
            buffer = access.buffer
            if access.writes:
                waits += [Wait(task.name, each, USED, buffer) for each in used.get(buffer, [])]
                filled[buffer], used[buffer] = task.name, []
            else:
                waits.append(Wait(task.name, filled[buffer], FILLED, buffer))
                used.setdefault(buffer, []).append(task.name)
    return waits


def with_waits(tasks: Sequence[Task], waits: Sequence[Wait]) -> list[Task]:
    """The tasks with these waits."""
    needs: dict[str, dict[str, None]] = {task.name: {} for task in tasks}
    for wait in waits:
        needs[wait.task][wait.needs] = None
    return [replace(task, after=tuple(needs[task.name])) for task in tasks]


def best_timeline(case: Case) -> Timeline:
    """The earliest safe end."""
    return simulate(with_waits(case.tasks, waits_of(case.tasks, case.accesses)))


def _cases() -> tuple[Case, ...]:
    speeds = {"fast messages": (0.5, 2.0, 4.0, 1.0), "slow messages": (3.0, 1.0, 2.0, 5.0),
              "slow reductions": (0.25, 2.0, 3.0, 9.0)}  # fmt: skip
    kinds: dict[str, dict] = {
        "5 layers, two buffers of each": {"num_layers": 5},
        "4 layers in stage 2": {"num_layers": 4, "zero_stage": 2},
        "6 layers, reductions on a stream of their own": {"num_layers": 6, "has_two_streams": True},
        "7 layers, three buffers of each": {
            "num_layers": 7, "weight_buffers": 3, "gradient_buffers": 3, "has_two_streams": True},
        "5 unequal layers in stage 2, three gradient buffers": {
            "num_layers": 5, "zero_stage": 2, "gradient_buffers": 3, "grows": 0.5},
        "1 layer": {"num_layers": 1},
        "5 layers, weights saved on a stream of their own": {"num_layers": 5, "saves": True},
    }  # fmt: skip
    return tuple(
        Case(f"{kind}, {speed}", seconds=seconds, **options)
        for kind, options in kinds.items()
        for speed, seconds in speeds.items()
    )


CASES = _cases()
