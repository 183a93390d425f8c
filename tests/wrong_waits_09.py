"""Lab 09's wrong waits and wrong searches, each with the words that its check must answer with."""

from dataclasses import replace
from functools import partial

from tests.wrong_builders_09 import mutant, right

waits, search = partial(mutant, "09.1"), partial(mutant, "09.2")

USED = "waits += used.get(buffer, [])"
FILLED = "waits.append(filled[buffer])"


def one_after_another(tasks, accesses):
    before = [(), *((task.name,) for task in tasks)]
    return [replace(task, after=after) for task, after in zip(tasks, before, strict=False)]


def last_issued(who, whom):
    """The right waits and one more: some tasks wait for the last one issued of another kind."""

    def add_waits(tasks, accesses):
        last, result = (), []
        for task in right["add_waits"](tasks, accesses):
            result.append(replace(task, after=(*task.after, *last)) if who(task) else task)
            last = (task.name,) if whom(task) else last
        return result

    return add_waits


def lessons_waits(tasks, accesses):
    """Two buffers of each, wherever: layer i - 2 in forward, i + 2 in backward."""
    names = [task.name for task in tasks]
    layers = [name.split()[-1] for name in names if name.startswith("forward")]
    result = []
    for task in tasks:
        *what, layer = task.name.split()
        place, after = layers.index(layer), []
        if what == ["gather", "forward"] and place >= 2:
            after = [f"forward {layers[place - 2]}"]
        if what == ["gather", "backward"] and place + 2 < len(layers):
            after = [f"backward {layers[place + 2]}"]
        if what in (["forward"], ["backward"]):
            after = [name for name in (f"gather {task.name}",) if name in names]
        if what == ["backward"] and place + 2 < len(layers):
            after.append(f"reduce-scatter {layers[place + 2]}")
        if what == ["reduce-scatter"]:
            after = [f"backward {layer}"]
        result.append(replace(task, after=tuple(after)))
    return result


def waits_for_the_last_use_alone(tasks, accesses):
    """As if all uses of a buffer stood in one stream, where the last one is the last to end."""
    last, result = {}, []
    for task in tasks:
        mine = [access for access in accesses if access.task == task.name]
        after = []
        for access in mine:
            filled, used = last.get(access.buffer, (None, None))
            after.append(used if access.writes else filled)
            last[access.buffer] = (task.name, None) if access.writes else (filled, task.name)
        result.append(replace(task, after=tuple(name for name in after if name)))
    return tuple(result)


def counted_one_too_far(tasks, accesses):
    compute = [task.name for task in tasks if task.stream == "compute"]
    needed = right["add_waits"](tasks, accesses)
    writers = {(a.task, b.task) for a in accesses if a.writes
               for b in accesses if not b.writes and b.buffer == a.buffer}  # fmt: skip
    result = []
    for task in needed:
        after = []
        for name in task.after:
            if (task.name, name) not in writers or name not in compute:
                is_use = (task.name, name) in writers
                after += [] if is_use else [name]
            elif compute.index(name):
                after.append(compute[compute.index(name) - 1])
        result.append(replace(task, after=tuple(after)))
    return result


def is_gather(task):
    return task.name.startswith("gather")


def is_message(task):
    return task.stream != "compute"


WAITS = [
    (lambda tasks, accesses: tasks, "no task waits for anything"),
    (waits(USED, "pass"), "a filling must wait, too"),
    (waits(FILLED, "pass"), "a use must wait for the filling"),
    (waits(USED, "waits += used.get(buffer, []) if task.name[:8] != 'gather b' else []"),
     "backward is forgotten"),
    (waits(USED, "waits += used.get(buffer, []) if buffer.startswith('weights') else []"),
     "gradient buffers are forgotten"),
    (waits(USED, "waits += used.get(buffer, []) if buffer.startswith('gradients') else []"),
     "weight buffers are forgotten"),
    (waits(FILLED, "waits += [filled[buffer]] if buffer.startswith('weights') else []"),
     "a reduce-scatter uses what its backward has filled"),
    (waits(USED, "waits += used.get(buffer, [])[:1]"), "may be used several times"),
    (waits_for_the_last_use_alone, "the use issued last need not be the last to end"),
    (waits(USED, "waits += [filled[buffer]] if buffer in filled else []"),
     "a filling must wait, too"),
    (counted_one_too_far, "the layer before the one whose values it overwrites"),
    (one_after_another, "nothing overlaps"),
    (last_issued(is_gather, lambda task: not is_message(task)),
     "the layer issued last computes in another buffer"),
    (last_issued(lambda task: not is_message(task), is_message),
     "messages that it does not need"),
    (last_issued(lambda task: task.name.startswith("backward"),
                 lambda task: task.name.startswith("reduce")), "are not told apart"),
    (lessons_waits, "there may be more than two"),
    (waits("return result", "pass"), "without a return"),
    (waits("return result", "return result[::-1]"), "the order of issue is given"),
    (waits("return result", "return result[1:]"), "is not in the list"),
    (waits("after=tuple(waits)", "after=tuple(waits), seconds=0.0"), "other seconds"),
    (waits("after=tuple(waits)", "after=(filled[buffer],) if 0 else waits[0] if waits else ()"),
     "a text is a tuple of letters"),
    (waits("after=tuple(waits)", "after=tuple(a.buffer for a in accesses[:1])"),
     "not of buffers or layers"),
    (waits("after=tuple(waits)", "after=(tasks[-1].name,)"), "the step hangs"),
]  # fmt: skip

IN_BETWEEN = "since_s < each.start_s < use.end_s"
SAME = "each.layer != use.layer and "
SINCE = "since_s = max(each.start_s for each in fills"
BUFFER = "each.fills and each.buffer == use.buffer"
MIN = "start_s, who, whom = min(found)"


def neighbours(log):
    """Each filling is compared with the use in its buffer that began last before it."""
    found = []
    for fill in log:
        before = [use for use in log if not use.fills and use.buffer == fill.buffer
                  and use.start_s <= fill.start_s]  # fmt: skip
        last = max(before, key=lambda use: use.start_s, default=None)
        is_other = fill.fills and last is not None and last.layer != fill.layer
        if is_other and fill.start_s < last.end_s:
            found.append((fill.start_s, fill.task, last.task))
    return min(found)[1:] + min(found)[:1] if found else None


def never(log):
    return None


def swapped(log):
    found = right["first_overwrite"](log)
    return found and (found[1], found[0], found[2])


SEARCHES = [
    (never, "no overwrite is ever found"),
    (search(IN_BETWEEN, "since_s < each.start_s <= use.end_s"), "at the same moment is no overlap"),
    (search(SAME, ""), "its own values again"),
    (search(BUFFER, "each.fills and each.buffer[0] == use.buffer[0]"), "are not told apart"),
    (search(BUFFER, "each.fills"), "buffers are not told apart"),
    (search(IN_BETWEEN, "use.start_s <= each.start_s < use.end_s"), "has not begun yet"),
    (search("since_s = max", "since_s = min"), "the latest filling before it"),
    (search("if use.fills:", "if use.fills or use.task.startswith(('send', 'reduce')):"),
     "messages in flight are ignored"),
    (neighbours, "only neighbours in time are compared"),
    (search(MIN, "start_s, who, whom = found[0]"), "the log is in no particular order"),
    (search(MIN, "start_s, who, whom = max(found)"), "not the first in time"),
    (swapped, "who overwrites comes first"),
    (search("return who, whom, start_s",
            "return who, whom, next(use.start_s for use in log if use.task == whom)"),
     "the task that overwrites begins"),
    (search("return who, whom, start_s", "return who, whom"), "return (who, whom, when)"),
    (search("return who, whom, start_s", "return [sorted(found)]"), "not a list of all"),
    (search("each.task, use.task)", "each.layer, use.layer)"), "use.task, not the layer"),
    (search("return who, whom, start_s", "return who, whom, str(start_s)"), "must be a number"),
]  # fmt: skip
