"""Judge of lab 09, who waits for whom: no buffer overwritten, and no wait too many."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_09_waits import CASES, Case, best_timeline
from utils.checks.truth_09_waits_mistakes import name_of
from utils.simulate import Task, Timeline, overwrites, simulate


@exercise(
    "09.1",
    "who waits for whom",
    hints=[
        "Go through the tasks in the order of issue, and remember of each buffer who has filled it "
        "and who has used that since. What must a use wait for, and what a filling?",
        "filled = {}, used = {}. For each access of the task: if it writes, wait for all of "
        "used[buffer], then filled[buffer] = task.name and used[buffer] = []; else wait for "
        "filled[buffer] and append the task to used[buffer]. replace(task, after=tuple(waits)).",
    ],
    seconds=30,
    lab="lab_09_yafsdp",
)
def judge_waits(answer: Callable) -> str:
    """Seven kinds of steps at three speeds each."""
    require_function(answer)
    timelines = [_timeline(case, answer(case.tasks, case.accesses)) for case in CASES]
    for place, (case, timeline) in enumerate(zip(CASES, timelines, strict=True)):
        problems = overwrites(timeline, case.accesses)
        if problems:
            raise NotYet(f"For {case.name}: {problems[0]}", likely=name_of(timelines, place))
        best_s = best_timeline(case).total_s
        if not close_to(timeline.total_s, best_s, 1e-9):
            what = f"For {case.name}: no overwrite, but a stall: the step is too long, in seconds"
            raise NotYet(what, best_s, timeline.total_s, name_of(timelines, place))
    return (
        f"{len(CASES)} steps without an overwrite, each as short as a safe one can be; the first, "
        f"with {CASES[0].num_layers} layers, takes {timelines[0].total_s:g} s, "
        f"{timelines[0].exposed_s:g} s of them waiting."
    )


def _timeline(case: Case, tasks: object) -> Timeline:
    likely = "the function ends without a return" if tasks is None else ""
    is_list = isinstance(tasks, Sequence) and all(isinstance(each, Task) for each in tasks)
    require(is_list, "Return a list of tasks", got=tasks, likely=likely)
    given = {task.name: task for task in case.tasks}
    got = [task.name for task in tasks]
    missing = [name for name in given if name not in got]
    require(not missing, f"For {case.name}, {missing[:1]} is not in the list")
    likely = "the order of issue is given: only `after` changes"
    require(got == list(given), f"For {case.name}, the tasks come in another order", likely=likely)
    changed = [t.name for t in tasks if replace(t, after=()) != replace(given[t.name], after=())]
    likely = "replace(task, after=...) keeps the rest"
    require(not changed, f"For {case.name}, {changed[:1]} has other seconds or another stream",
            likely=likely)  # fmt: skip
    for place, task in enumerate(tasks):
        likely = "after=(name,) with a comma: a text is a tuple of letters"
        require(not isinstance(task.after, str), f"{task.name} waits for a text", got=task.after,
                likely=likely)  # fmt: skip
        odd = [name for name in task.after if name not in got]
        require(not odd, f"For {case.name}, {task.name} waits for {odd[:1]}, which is no task",
                likely="`after` has the names of tasks, not of buffers or layers")  # fmt: skip
        late = [name for name in task.after if got.index(name) >= place]
        likely = (
            "what is issued later can only come later. Look back from each task, and take buffers "
            "from the accesses: there may be more than two"
        )
        require(not late, f"For {case.name}, {task.name} waits for {late[:1]}, which is not issued "
                "before it: the step hangs", likely=likely)  # fmt: skip
    return simulate(tasks)
