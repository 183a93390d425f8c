"""Wrong answers to lab 05, menus and money: each switch is one mistake that learners make."""

import math
from functools import cache

from tests.lab_source import solution_functions

LAB = "lab_05_choosing_what_to_keep"
right = solution_functions(LAB)


def dear(call):
    return call.flops >= 16 * call.num_bytes


def choose(
    *, needed=lambda option: option.peak_bytes, stays=lambda option: option.kept_bytes,
    strict=False, nothing=None,
):
    """The solution of 05.2 with one mistake."""

    def answer(menus, budget_bytes):
        @cache
        def best(k, left):
            found = [(math.inf, ())]
            for number, option in enumerate(menus[k]) if k < len(menus) else ():
                if needed(option) < left or (needed(option) == left and not strict):
                    flops, rest = best(k + 1, left - stays(option))
                    found.append((option.again_flops + flops, (number, *rest)))
            return min(found) if k < len(menus) else (0, ())

        flops, choice = best(0, budget_bytes)
        return list(choice) if flops < math.inf else nothing

    return answer


def finished_layers_count(menus, budget_bytes):
    """Plans for the sum of all kept bytes, as if no layer's backward were ever over."""

    def best(k, kept, peak):
        if k == len(menus):
            return (0, ()) if kept + peak <= budget_bytes else (math.inf, ())
        found = []
        for number, option in enumerate(menus[k]):
            work = option.peak_bytes - option.kept_bytes
            flops, rest = best(k + 1, kept + option.kept_bytes, max(peak, work))
            found.append((option.again_flops + flops, (number, *rest)))
        return min(found)

    flops, choice = best(0, 0, 0)
    return choice if flops < math.inf else None


def first_that_fits(menus, budget_bytes):
    choice, left = [], budget_bytes
    for menu in menus:
        fitting = [k for k, option in enumerate(menu) if option.peak_bytes <= left]
        if not fitting:
            return None
        choice.append(fitting[0])
        left -= menu[fitting[0]].kept_bytes
    return choice


def most_bytes_per_flop(menus, budget_bytes):
    choice = [0] * len(menus)

    def peak():
        options = [menu[k] for menu, k in zip(menus, choice, strict=True)]
        kept = [sum(o.kept_bytes for o in options[:k]) for k in range(len(options))]
        return max(k + o.peak_bytes for k, o in zip(kept, options, strict=True))

    def gain(k):
        now, then = menus[k][choice[k]], menus[k][choice[k] + 1]
        return (now.kept_bytes - then.kept_bytes) / max(1, then.again_flops - now.again_flops)

    while peak() > budget_bytes:
        open_layers = [k for k, menu in enumerate(menus) if choice[k] + 1 < len(menu)]
        if not open_layers:
            return None
        choice[max(open_layers, key=gain)] += 1
    return choice


def one_for_all(menus, budget_bytes):
    for number in range(min(map(len, menus))):
        options = [menu[number] for menu in menus]
        kept = [sum(o.kept_bytes for o in options[:k]) for k in range(len(options))]
        if all(k + o.peak_bytes <= budget_bytes for k, o in zip(kept, options, strict=True)):
            return [number] * len(menus)
    return None


def fewest_bytes(menus, budget_bytes):
    smallest = [min(range(len(m)), key=lambda k, m=m: m[k].kept_bytes) for m in menus]
    return smallest if right["choose_options"](menus, budget_bytes) else None


def price(
    *, fixed=True, key=None, accumulate=True, cap=True, up=True, fewest_bytes=True,
    nothing=None, speed=True, start=True, room=math.floor, all_like_first=False,
):
    """The solution of 05.5 with one mistake."""

    def answer(machines, techniques, batch_size):
        found = []
        for machine in machines:
            for technique in techniques:
                left = machine.memory_bytes - fixed * technique.fixed_bytes
                most = room(left / technique.bytes_per_sequence)
                for size in range(1, (min(batch_size, most) if cap else most) + 1):
                    timed = techniques[0] if all_like_first else technique
                    seconds = math.ceil(batch_size / size) if up else batch_size / size
                    seconds = start * seconds * timed.seconds_per_micro_batch
                    seconds += batch_size * timed.seconds_per_sequence
                    seconds /= machine.speed if speed else 1
                    usd = seconds * machine.usd_per_hour
                    num_bytes = technique.fixed_bytes + size * technique.bytes_per_sequence
                    chosen = machine.name, technique.name, size
                    cost = key(machine, technique, size, seconds, usd) if key else usd
                    if accumulate or size == batch_size:
                        found.append((cost, num_bytes if fewest_bytes else -num_bytes, chosen))
        return min(found)[2] if found else nothing

    return answer
