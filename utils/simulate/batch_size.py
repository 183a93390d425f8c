"""When a larger batch stops helping: the critical batch size, and the learning rate beside it.

How it works: below a critical batch size, twice the batch needs about half the steps and no more
tokens. Far above it, twice the batch needs as many steps, and twice the tokens. Between the two

    steps  = fewest steps  x (1 + critical / batch)
    tokens = fewest tokens x (1 + batch / critical),   fewest tokens = fewest steps x critical

McCandlish et al. 2018 (arXiv 1812.06162) found the gradient's noise to predict the critical size;
its abstract was read, these formulas are recalled, unverified. Merrill et al. 2025 (arXiv
2505.23971, abstract read) doubt that prediction and find that the size grows during training.

Left out: any value of the critical size. It must be measured for the model at hand.
"""

RULES = ("linear", "square root")


def steps_factor(batch_tokens: float, critical_tokens: float) -> float:
    """Steps over the fewest possible: 2 at the critical size, near 1 far above it."""
    _check(batch_tokens=batch_tokens, critical_tokens=critical_tokens)
    return 1 + critical_tokens / batch_tokens


def tokens_factor(batch_tokens: float, critical_tokens: float) -> float:
    """Tokens over the fewest possible: 2 at the critical size, near 1 far below it."""
    _check(batch_tokens=batch_tokens, critical_tokens=critical_tokens)
    return 1 + batch_tokens / critical_tokens


def effective_batch(num_gpus: int, batch_per_gpu: int, num_micro_batches: int = 1) -> int:
    """Sequences behind one update: the optimizer cannot see how they were spread."""
    _check(num_gpus=num_gpus, batch_per_gpu=batch_per_gpu, num_micro_batches=num_micro_batches)
    return num_gpus * batch_per_gpu * num_micro_batches


def scaled_learning_rate(
    learning_rate: float, batch: float, base_batch: float, rule: str = "linear"
) -> float:
    """A rate tuned at `base_batch`, carried over to `batch`.

    "linear" (plain SGD; Goyal et al. 2017, recalled) keeps the distance that a token moves the
    weights; "square root" (usual for Adam, recalled) keeps the noise of an update. Both are
    starting points for tuning, for batches below the critical size.
    """
    _check(learning_rate=learning_rate, batch=batch, base_batch=base_batch)
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r}; take {' or '.join(RULES)}.")
    ratio = batch / base_batch
    return learning_rate * (ratio if rule == "linear" else ratio**0.5)


def _check(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0.")
