"""Judge of lab 05, the policy: bytes that stay and FLOPs that come again, on unseen blocks."""

from functools import cache

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_05 import (
    Call,
    Policy,
    PolicyCheckpoint,
    StepBill,
    bill_of,
    torch_left_alone,
)
from utils.checks.truth_05_models import build_blocks, random_input
from utils.config import GPTConfig
from utils.model import Block
from utils.plots import bytes_text

MOST_KEPT, MOST_AGAIN = 0.22, 0.05
CASES = {  # blocks, and the rank of adapters on their linear layers
    "blocks with 32 heads": (GPTConfig(2, 32, 128, 160, attention="explicit"), 0),
    "blocks with shared key heads and no biases": (
        GPTConfig(2, 24, 96, 128, num_kv_heads=8, attention="explicit", bias=False), 0,
    ),
    "blocks with low-rank adapters": (GPTConfig(2, 32, 128, 144, attention="explicit"), 4),
}  # fmt: skip


@cache
def _case(name: str) -> tuple[list[Block], Tensor, StepBill]:
    """Blocks, their input, and the bill of a step without checkpoints."""
    config, rank = CASES[name]
    blocks, x = build_blocks(config, rank), random_input(config)
    return blocks, x, bill_of(blocks, x)


@exercise(
    "05.1",
    "a policy that asks for the price",
    hints=[
        "Divide: how many FLOPs does one byte of a result save from running again? Compare the two "
        "`bmm` of the table with the `addmm`.",
        "A product's result costs half its inner width in FLOPs per byte (fp32): few for Q times K "
        "with narrow heads, many elsewhere. Keep a call when its FLOPs are at least 16 times its "
        "bytes.",
    ],
    seconds=60,
    lab="lab_05_choosing_what_to_keep",
)
def judge_policy(answer: Policy) -> str:
    """Real bytes, real FLOPs and gradients on three kinds of blocks."""
    require_function(answer)
    most_kept = most_again = 0.0
    for name in CASES:
        blocks, x, plain = _case(name)
        checkpoint = PolicyCheckpoint(answer)
        with torch_left_alone():
            bill = bill_of(blocks, x, checkpoint)
        kept, again = bill.kept_bytes / plain.kept_bytes, bill.flops / plain.flops - 1
        _require_shares(name, kept, again, checkpoint.decisions)
        pairs = zip(bill.gradients, plain.gradients, strict=True)
        same = all(torch.equal(got, exact) for got, exact in pairs)
        require(same, f"In {name}, a gradient differs from the one without checkpoints")
        most_kept, most_again = max(most_kept, kept), max(most_again, again)
    return (
        f"At most {most_kept:.1%} of the bytes stay and {most_again:.1%} of the FLOPs come again "
        f"in {len(CASES)} kinds of blocks, gradients equal in every bit. In fp32 a "
        "product costs half its inner width in FLOPs per byte, whatever it is called."
    )


def _require_shares(
    name: str, kept: float, again: float, decisions: list[tuple[Call, bool]]
) -> None:
    """Both limits; what is above one is explained by the policy's worst decision."""
    results = f"In {name}, {kept:.1%} of the bytes stay and {again:.1%} of the FLOPs come again"
    if again > MOST_AGAIN:
        raise NotYet(f"{results}; allowed are {MOST_AGAIN:.0%}", likely=_dear(decisions))
    if kept > MOST_KEPT:
        results = f"In {name}, {again:.1%} of the FLOPs come again and {kept:.1%} of the bytes stay"
        raise NotYet(f"{results}; allowed are {MOST_KEPT:.0%}", likely=_bulky(decisions))


def _dear(decisions: list[tuple[Call, bool]]) -> str:
    """The dropped call that a byte would have saved the most FLOPs of."""
    if not any(keep for _, keep in decisions):
        return "this keeps nothing, so everything runs again"
    *_, last_product = (call for call, _ in decisions if call.flops)  # early stop: never again
    dropped = [call for call, keep in decisions if not keep and call != last_product]
    worst = max(dropped, key=lambda call: call.flops / call.num_bytes)
    likely = f"{_described(worst)} is dropped, and making it again costs {_price(worst)}"
    if worst.name == "mm":
        likely += "; a linear layer without bias is called `mm`"
    if worst.name == "bmm":
        likely += "; attention has two `bmm`, and only one of them has a large result"
    return likely


def _bulky(decisions: list[tuple[Call, bool]]) -> str:
    """The largest kept result that would be cheap to make again."""
    kept = [call for call, keep in decisions if keep]
    if len(kept) == len(decisions):
        return "this keeps every result; a step without checkpoints keeps only what backward reads"
    worst = max(kept, key=lambda call: (call.flops < 16 * call.num_bytes, call.num_bytes))
    if not worst.flops:
        return f"{_described(worst)} is kept, and not one product is saved by that"
    why = "these are the T x T scores" if worst.name == "bmm" else "the product is narrow inside"
    likely = f"{_described(worst)} is kept, although making it again costs only {_price(worst)}"
    return f"{likely}: {why}"


def _described(call: Call) -> str:
    return f"a result of `{call.name}` ({bytes_text(call.num_bytes)})"


def _price(call: Call) -> str:
    return f"{call.flops / call.num_bytes:.3g} FLOPs per byte"
