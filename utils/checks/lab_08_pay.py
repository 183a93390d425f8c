"""Judge of lab 08, does it pay: GPUs that fit, tokens that hide, dollars of the rest."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_08_pay import (
    CASES,
    MOST_GPUS,
    Job,
    exposed_usd,
    fewest_gpus,
    hiding_tokens,
    seconds,
)
from utils.checks.truth_08_pay_mistakes import (
    Variant,
    gpu_mistakes,
    token_mistakes,
    usd_mistakes,
)


@exercise(
    "08.5",
    "does it pay?",
    hints=[
        "Memory: what does a GPU hold, what is whole, what belongs to its tokens? Try one GPU, "
        "two, ... Time: how long is a layer's message, how long does it compute for one token? "
        "Forward hides one message behind 2 FLOPs a value, backward two behind 4.",
        "shard = -(-values // N). 16 * (num_layers * layer + root) + N * (2 * root + (4 + "
        "gradient_bytes) * layer) + activation_bytes * num_tokens <= memory_bytes. gather_s = 2 * "
        "(N - 1) * layer * 8 / link_bits_per_s, reduce_s with gradient_bytes in place of 2, "
        "token_s = 2 * layer_values / flops_per_s. Forward hides if tokens * token_s >= gather_s, "
        "backward if 2 * tokens * token_s >= gather_s + reduce_s.",
    ],
    seconds=30,
    lab="lab_08_fsdp",
)
def judge_pay(answer: Callable) -> str:
    """Eight jobs, three of them so tight that one byte more would need another GPU."""
    require_function(answer)
    results = [_result(job, answer(job)) for job in CASES]
    likely = "the function ends without a return"
    require(any(results), "None for every job, though most of them fit", likely=likely)
    gpus = [None if each is None else each[0] for each in results]
    _require_all("the fewest GPUs", CASES, gpus, fewest_gpus, gpu_mistakes())
    jobs = [job for job in CASES if fewest_gpus(job)]
    tokens, usd = ([each[k] for each in results if each is not None] for k in (1, 2))
    _require_all("the fewest tokens", jobs, tokens, _tokens, token_mistakes(fewest_gpus))
    _require_all("dollars of waiting", jobs, usd, _usd, usd_mistakes(fewest_gpus))
    return (
        f"{len(CASES)} jobs. Nearly 7 billion values fit on {gpus[3]} GPUs of 80 GB, hide from "
        f"{tokens[3]:,} tokens a GPU on, and with {CASES[4].num_tokens:,} on a slower link cost "
        f"${usd[4]:.4f} of waiting in each step."
    )


def _tokens(job: Job) -> int:
    return math.ceil(hiding_tokens(seconds(job, fewest_gpus(job))))


def _usd(job: Job) -> float:
    return exposed_usd(job, fewest_gpus(job))


def _name(job: Job) -> str:
    return f"job {CASES.index(job) + 1} of {len(CASES)}"


def _result(job: Job, got: object) -> Sequence[float] | None:
    if got is None:
        return None
    is_triple = isinstance(got, (tuple, list)) and len(got) == 3
    require(is_triple, "Return three numbers, (GPUs, tokens, dollars), or None", got=got)
    for what, value in zip(("GPUs", "tokens", "dollars"), got, strict=True):
        require_number(f"For {_name(job)}, the number of {what}", value)
    for what, value in zip(("GPUs", "tokens"), got[:2], strict=True):
        whole = isinstance(value, Integral) or float(value).is_integer()
        text = f"For {_name(job)}, the number of {what} must be whole, rounded up"
        require(whole, text, got=value)
    return got


def _require_all(
    what: str, jobs: Sequence[Job], got: Sequence[float | None],
    formula: Callable[[Job], float | None], mistakes: list[Variant],
) -> None:  # fmt: skip
    wrong = [
        number for number, (job, value) in enumerate(zip(jobs, got, strict=True))
        if not _equal(value, formula(job))
    ]  # fmt: skip
    if not wrong:
        return
    job, value = jobs[wrong[0]], got[wrong[0]]
    explains_all = (
        text for text, variant in mistakes
        if all(_equal(v, variant(j)) for v, j in zip(got, jobs, strict=True))
    )  # fmt: skip
    explains_one = (text for text, variant in mistakes if _equal(value, variant(job)))
    likely = next(explains_all, "") or next(explains_one, "")
    if formula(job) is None:
        likely = likely or f"if {MOST_GPUS:,} GPUs are too few, return None"
    expected = "None" if formula(job) is None else formula(job)
    got_text = "None" if value is None else value
    raise NotYet(f"For {_name(job)}, {what}: wrong ({job})", expected, got_text, likely)


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return close_to(one, other, 1e-9, 1e-15)
