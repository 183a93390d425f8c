"""Lab 09's wrong choices of buffers, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_09 import mutant

gain = partial(mutant, "09.5")

LESS, MORE = "100 * (1 - best_s / one_s)", "100 * (one_s / best_s - 1)"
RETURN = f"return count, num_bytes, {LESS}, {MORE}"
ENOUGH = "if forward_s(n) <= best_s)"
BYTES = "sum(max(layer_bytes[place::count]) for place in range(count))"
COUNT = "count = next(n for n in range(1, num_layers + 1) if forward_s(n) <= best_s)"
BEST = "best_s = forward_s(1), forward_s(num_layers)"
OTHER = COUNT + "\n    best_s = {}"
FIRST = "if forward_s(n) <= gather_s[0] + sum(compute_s) or n == num_layers)"
FIRST += "\n    best_s = forward_s(count)"

GAINS = [
    (gain(RETURN, f"return count, num_bytes, {MORE}, {LESS}"), "percentage of the wrong base"),
    (gain(MORE, LESS), "percentage of the wrong base"),
    (gain(LESS, MORE), "percentage of the wrong base"),
    (gain("100 * ", ""), "shares, not percent"),
    (gain(COUNT, OTHER.format("sum(gather_s) + sum(compute_s)")), "hidden messages are counted"),
    (gain(COUNT, "best_s, count = one_s, 1"), "hidden messages are counted"),
    (gain(COUNT, OTHER.format("max(sum(gather_s), sum(compute_s))")), "its gather comes first"),
    (gain(COUNT, OTHER.format("sum(compute_s)")), "some of them cannot be hidden"),
    (gain(COUNT, "count = min(2, num_layers); best_s = forward_s(count)"), "not always enough"),
    (gain(COUNT, "count = min(2, num_layers); best_s = forward_s(count)", BYTES,
          "count * max(layer_bytes)"), "not always enough"),
    (gain(COUNT, "count = num_layers"), "fewer may do"),
    (gain(COUNT, f"{COUNT}\n    count = min(count + 1, num_layers)"), "one buffer too many"),
    (gain(COUNT, f"{COUNT}\n    count = max(count - 1, 1); best_s = forward_s(count)"),
     "one buffer too few"),
    (gain(ENOUGH, FIRST), "some waiting stays"),
    (gain(BYTES, "count * max(layer_bytes)"), "its own users only"),
    (gain(BYTES, "count * sum(layer_bytes) // num_layers"), "sized to the average layer"),
    (gain(BYTES, "sum(layer_bytes)"), "a buffer of their own"),
    (gain(RETURN, "return count, num_bytes"), "Return the number of buffers, their bytes"),
    (gain(RETURN, "pass"), "without a return"),
    (gain(LESS, "f'{count} %'"), "must be a number"),
    (gain("return count,", "return float(count),"), "the number of buffers is whole"),
]  # fmt: skip
