"""The cheapest plan that stays within a number of bytes, for layers of any cost.

How it works: dynamic programming over (first layer, last layer, bytes left). A layer either keeps
what it saves, which leaves fewer bytes for the rest of the chain, or a part of the chain is
bracketed: it keeps only its input, the rest is planned with the bytes left, and the part itself is
planned again with all of them, for its run in backward. The cost is forward FLOPs. Bytes are
rounded up to slots, so a plan can be a little too careful, never over. The idea of planning unequal
chains this way is Rotor's (Beaumont et al. 2019, hal-02316266, recalled); code and cost model here
are the course's own.

Left out: schedules that throw a kept input away before its part is done, and seconds in place of
FLOPs. Bytes are those of `checkpoint_by_hooks`; `checkpoint_by_function` also holds the output of
every part that runs again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

from utils.techniques.chain import LayerCost
from utils.techniques.segments import Plan

NUM_SLOTS = 2048
NEVER = float("inf")


def plan_peak_bytes(plan: Plan, costs: Sequence[LayerCost]) -> int:
    """Bytes above the chain's input at the worst moment of forward and backward by a plan.

    The caller holds the last layer's output, a loss, throughout, and `backward()` the gradient of
    ones that it starts from.
    """
    held_bytes = 2 * costs[_flat(plan)[-1]].output_bytes
    return held_bytes + _part_peak_bytes(plan, costs, waiting_bytes=0)


def _part_peak_bytes(plan: Plan, costs: Sequence[LayerCost], waiting_bytes: int) -> int:
    """The same for a part at whose end a gradient of `waiting_bytes` waits while it runs again."""
    alive, peak = waiting_bytes, 0
    before: list[int] = []  # bytes alive in backward below each step
    for step in plan:
        before.append(alive - waiting_bytes)
        if isinstance(step, int):
            peak = max(peak, alive + costs[step].graph_peak_bytes)
            alive += costs[step].saved_bytes + costs[step].output_bytes
        else:
            part = _flat(step)
            peak = max(peak, alive + _plain_peak_bytes(part, costs))
            alive += costs[part[-1]].output_bytes
    for step, below in zip(plan, before, strict=True):
        if isinstance(step, int):
            peak = max(peak, below + costs[step].backward_peak_bytes)
        else:
            gradient_bytes = costs[_flat(step)[-1]].output_bytes
            peak = max(peak, below + _part_peak_bytes(step, costs, gradient_bytes))
    return peak


def plan_flops(plan: Plan, costs: Sequence[LayerCost], depth: int = 1) -> int:
    """FLOPs of all forward runs of a plan."""
    return sum(
        depth * costs[step].flops if isinstance(step, int) else plan_flops(step, costs, depth + 1)
        for step in plan
    )


def cheapest_plan(costs: Sequence[LayerCost], budget_bytes: int) -> Plan:
    """The plan with the fewest forward FLOPs whose peak stays within `budget_bytes`.

    The bytes are those above the chain's input, as in `plan_peak_bytes`. Raises ValueError, with
    the least budget that works, if no plan does.
    """
    plain: Plan = tuple(range(len(costs)))
    if plan_peak_bytes(plain, costs) <= budget_bytes:
        return plain
    least_bytes, tightest = _tightest_plans(costs)(0, len(costs) - 1)
    least_bytes += 2 * costs[-1].output_bytes
    if budget_bytes < least_bytes:
        raise ValueError(
            f"No plan stays within {budget_bytes:,} bytes; {least_bytes:,} bytes are the least "
            "that works. Give it more, or make the batch smaller."
        )
    return _search(costs, budget_bytes) or tightest  # slots can be too coarse for the last bytes


def least_budget_bytes(costs: Sequence[LayerCost]) -> int:
    """The smallest budget for which there is a plan, exactly."""
    return _tightest_plans(costs)(0, len(costs) - 1)[0] + 2 * costs[-1].output_bytes


def _tightest_plans(costs: Sequence[LayerCost]) -> Callable[[int, int], tuple[int, Plan]]:
    """For layers start..end: the fewest bytes above their input, and a plan that needs no more."""

    @lru_cache(None)
    def tightest(start: int, end: int) -> tuple[int, Plan]:
        mine, waiting = costs[start], _waiting_bytes(costs, end)
        alone = max(mine.graph_peak_bytes + waiting, mine.backward_peak_bytes)
        if start == end:
            return alone, (start,)
        above, plan = tightest(start + 1, end)
        kept = mine.saved_bytes + mine.output_bytes
        options: list[tuple[int, Plan]] = [(max(alone, kept + above), (start, *plan))]
        for cut in range(start, end):
            above, plan = tightest(cut + 1, end)
            again, inner = tightest(start, cut)
            once = waiting + _plain_peak_bytes(range(start, cut + 1), costs)
            options.append((max(once, costs[cut].output_bytes + above, again), (inner, *plan)))
        return min(options, key=lambda option: option[0])

    return tightest


def _waiting_bytes(costs: Sequence[LayerCost], end: int) -> int:
    """The gradient that waits at the end of layers ..., `end` while they run again."""
    return 0 if end == len(costs) - 1 else costs[end].output_bytes


def _search(costs: Sequence[LayerCost], budget_bytes: int) -> Plan | None:
    """The dynamic programme, in slots."""
    slot_bytes = max(1, budget_bytes // NUM_SLOTS)
    slots = [_in_slots(cost, slot_bytes) for cost in costs]
    flops_before = [0, *accumulate(cost.flops for cost in costs)]
    least = _tightest_plans(slots)

    @lru_cache(None)
    def best(start: int, end: int, left: int) -> tuple[float, Plan]:
        """Fewest FLOPs for layers start..end within `left` slots above their input."""
        if least(start, end)[0] > left:
            return NEVER, ()
        plain: Plan = tuple(range(start, end + 1))
        if _part_peak_bytes(plain, slots, _waiting_bytes(slots, end)) <= left:
            return flops_before[end + 1] - flops_before[start], plain
        return min(options(start, end, left), key=lambda option: option[0])

    def options(start: int, end: int, left: int) -> Iterator[tuple[float, Plan]]:
        mine, waiting = slots[start], _waiting_bytes(slots, end)
        if max(mine.graph_peak_bytes + waiting, mine.backward_peak_bytes) <= left:
            rest = best(start + 1, end, left - mine.saved_bytes - mine.output_bytes)
            yield costs[start].flops + rest[0], (start, *rest[1])
        for cut in range(start, end):
            if waiting + _plain_peak_bytes(range(start, cut + 1), slots) > left:
                break
            after = best(cut + 1, end, left - slots[cut].output_bytes)
            if after[0] < NEVER:
                again = best(start, cut, left)
                once = flops_before[cut + 1] - flops_before[start]
                yield once + after[0] + again[0], (again[1], *after[1])

    left = budget_bytes // slot_bytes - 2 * slots[-1].output_bytes
    flops, plan = best(0, len(costs) - 1, left)
    return plan if flops < NEVER else None


def _in_slots(cost: LayerCost, slot_bytes: int) -> LayerCost:
    """The same cost in slots, rounded up."""
    sizes = {name: -(-value // slot_bytes) for name, value in vars(cost).items() if name != "flops"}
    return LayerCost(flops=cost.flops, **sizes)


def _plain_peak_bytes(part: Sequence[int], costs: Sequence[LayerCost]) -> int:
    """Highest bytes above the part's input in a run that keeps nothing: one layer at a time."""
    inputs = [0, *(costs[layer].output_bytes for layer in part[:-1])]
    return max(
        held + costs[layer].plain_peak_bytes for held, layer in zip(inputs, part, strict=True)
    )


def _flat(plan: Plan) -> list[int]:
    return [layer for step in plan for layer in ([step] if isinstance(step, int) else _flat(step))]
