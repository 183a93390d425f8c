"""Lab 10's wrong explanations of a bill, and wrong intervals, with the words of their checks."""

from dataclasses import replace
from functools import partial

from tests.wrong_builders_10 import mutant, right
from utils.checks.truth_10_explain import FACTORS

explain, save = partial(mutant, "10.4"), partial(mutant, "10.5")

TOKENS = 'sums[0] = logs[-1].steps[-1]["tokens"]'
EACH = "for log in logs:"
BEFORE = 'before = log.steps[since - 1] if since else {"seconds": 0.0, "usd": 0.0}'
USD = 'last["usd"] - before["usd"]'
OWN_S = 'seconds = last["step"] - since, last["seconds"] - before["seconds"]'
RETURN = "return [sums[0], *(b / a for a, b in itertools.pairwise(sums))]"
RANKS_OF_LAST = 'sums[5] = sums[4] * logs[-1].start["recipe"]["num_ranks"]\n        '
PRICE_OF_LAST = 'sums[6] = sums[5] * logs[-1].start["usd_per_gpu_hour"] / 3600\n        '
ALL = "return {name: b / a for name, a, b in pairs}"


def changed(change):
    """The right factors, changed."""
    return lambda planned, paid: change(right["explain"](planned, paid))


def with_factor(name, other):
    return changed(lambda f: f | {name: f[name] * f[other]})


def of_last(logs):
    """The last log as if the job had begun with it."""
    last = logs[-1]
    return [replace(last, start=last.start | {"resumed_from": None})]


BILLS = [
    (lambda planned, paid: right["explain"](of_last(planned), of_last(paid)), "the last log alone"),
    (explain("since, last = log.start, log.start[\"resumed_from\"] or 0, log",
             "since, last = log.start, 0, log"), "added up, it counts twice"),
    (explain(USD, 'last["usd"]'), 'dollars "so far" contain'),
    (explain(OWN_S, 'seconds = last["step"] - since, last["seconds"]'),
     'seconds "so far" contain'),
    (explain(RETURN, RANKS_OF_LAST + RETURN), "weigh it with seconds"),
    (explain(RETURN, PRICE_OF_LAST + RETURN), "the price may change at a new start"),
    (explain(RETURN, "sums[0] = sums[1]\n        " + RETURN), "only the kept ones are progress"),
    (explain("(useful + again) * num_steps", "useful * num_steps"),
     "FLOPs done again are FLOPs done"),
    (explain("useful * num_steps,\n", "(useful + again) * num_steps,\n"),
     "FLOPs done again are not the model's"),
    (with_factor("seconds", "price"), "the price counts twice"),
    (with_factor("seconds", "ranks"), "the ranks count twice"),
    (with_factor("seconds", "recomputation"), "recomputation counts twice"),
    (changed(lambda f: f | {"seconds": 1 / f["seconds"]}), "upside down"),
    (changed(lambda f: f | {"repeated": 1.0}), "repeated steps are left out"),
    (changed(lambda f: f | {"repeated": 1 - 1 / f["repeated"]}), "a factor, not a share"),
    (explain("b / a for name", "a / b for name"), "the other way round"),
    (explain("b / a for name", "b - a for name"), "differences do not multiply"),
    (explain("b / a for name", "100 * (b / a - 1) for name"), "not percent"),
    (explain("b / a for name", "math.log(b / a) for name"), "logarithms add up"),
    (changed(lambda f: {name: 1.0 for name in FACTORS} | {"price": f["price"]}),
     "do not multiply to paid"),
    (changed(lambda f: f | {"ranks": f["price"], "price": f["ranks"]}),
     "the product is right, but"),
    (changed(lambda f: {name: f[name] for name in FACTORS[1:]}), "Factors are missing: tokens"),
    (changed(lambda f: f | {"luck": 1.0}), "other factors than the seven"),
    (explain(ALL, "pairs"), "without a return"),
    (changed(lambda f: f | {"price": str(f["price"])}), "must be a number"),
]  # fmt: skip

BEST = "best = (low + high) / 2"
RESULT = "return best, rented(best), 100 * (1 - 1 / rented(best))"
TRIES = "tries = math.exp(restart_s / mean_s) * math.expm1((useful_s + save_s) / mean_s)"
RENTED = "return mean_s * tries / useful_s"
YOUNG = "best = math.sqrt(2 * save_s * mean_s)"


def other_price(text):
    """The right interval with another price."""
    return save(RESULT, f"paid = {text}\n    return best, paid, 100 * (1 - 1 / paid)")


SAVES = [
    (save(BEST, YOUNG), "a good first guess"),
    (save(BEST, YOUNG, RESULT, "paid = 1 + save_s / best + (restart_s + (best + save_s) / 2) / "
          "mean_s\n    return best, paid, 100 * (1 - 1 / paid)"), "half an interval is lost"),
    (save(BEST, "best = math.sqrt(save_s * mean_s)"), "forgets a 2"),
    (save(BEST, "best = mean_s"), "is too rare"),
    (save(TRIES, TRIES.replace("math.exp(restart_s / mean_s) * ", "")), "the restart is forgotten"),
    (save(TRIES, TRIES.replace("math.exp(restart_s / mean_s)", "(1 + restart_s / mean_s)")),
     "while restarting, too"),
    (other_price("(mean_s * math.exp(restart_s / mean_s) * math.expm1(best / mean_s) + save_s) "
                 "/ best"), "while saving, too"),
    (save(RESULT, RESULT.replace("(1 - 1 / rented(best))", "(rented(best) - 1)")),
     "discount of the wrong base"),
    (save(RESULT, RESULT.replace("100 * ", "")), "percent, not a share"),
    (save(RESULT, RESULT.replace("(1 - 1 / rented(best))", "/ rented(best)").replace("* /", "/")),
     "the price that may be left"),
    (save(RESULT, RESULT.replace("best, rented(best)", "best, 1 / rented(best)")),
     "not useful for rented"),
    (save(RESULT, RESULT.replace("return best", "return best + save_s")),
     "the save comes on top"),
    (save(RESULT, RESULT.replace("return best", "return best / 3600")), "asked for in seconds"),
    (save("3600 * mean_hours", "mean_hours"), "mean_hours are hours"),
    (save("3600 * mean_hours", "60 * mean_hours"), "mean_hours are hours"),
    (save("low + third) < rented", "low + third) > rented"), "dearer"),
    (save(RESULT, "return best, rented(best)"), "Return three numbers"),
    (save(RESULT, "best"), "without a return"),
    (save(RESULT, RESULT.replace("return best", "return -best")), "must be above 0"),
    (save(RESULT, RESULT.replace("return best", "return str(best)")), "must be a number"),
]  # fmt: skip
