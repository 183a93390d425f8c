"""Lab 06's wrong answers, each with the words that its check must answer with."""

from functools import partial

import torch

from tests.wrong_builders_06 import (
    doubled,
    gathered,
    gathered_errors,
    lessons_ring,
    library,
    mutant,
    one_by_one,
    right,
    round_whole,
    summed_in_bf16,
    zeros,
)
from tests.wrong_steps_06 import OVERLAP, TOKENS
from utils.checks.truth_06_buckets import Link, best_counts, end_s, greedy_counts
from utils.ranks.collectives import all_gather, reduce_scatter

hops, bf16 = partial(mutant, "06.1"), partial(mutant, "06.5")
best = right["best_buckets"]

COPY_BACK = "tensor.copy_(part.view_as(tensor))"
WAY_BACK = "for kept, given, partner in reversed(swaps):"
HOPS = [
    (hops("flat_P[start:end] /= world_size", "pass"), "sum instead of mean"),
    (hops(COPY_BACK, "tensor.copy_(part.view_as(tensor) / world_size)"), "world_size twice"),
    (round_whole, "whole tensor in every hop, all the way round"),
    (doubled, "whole tensor in every hop: send the half"),
    (gathered, "gathering at one rank"),
    (lessons_ring, "this is the lesson's ring"),
    (one_by_one(right["mean_in_few_hops"]), "one all-reduce per tensor"),
    (library, "the ledger has all_reduce"),
    (hops(WAY_BACK, "for kept, given, partner in []:"), "hand the finished parts out"),
    (hops(COPY_BACK, "pass"), "copy the result back"),
    (hops(COPY_BACK, "tensor.reshape(-1).copy_(part)"), "of a transposed tensor is a copy"),
    (hops("0, sum(sizes), w", "0, sum(sizes) // world_size * world_size, w"),
     "must still cover every value"),
    (hops("for tensor, part in zip(tensors, ", "for k, part in zip(range(len(tensors)), ",
          COPY_BACK, "tensors[k] = part.view_as(tensors[k])"), "not into the list"),
    (hops("rank ^ distance", "(rank + distance) % world_size"), "must name each other"),
    (hops("torch.empty_like(kept)", "torch.empty(kept.numel())"), "in the tensors' own dtype"),
    (zeros, "all-zero tensors agree on every rank"),
    (hops("swaps.append((kept, given, partner))",
          "swaps.append((kept, given, partner, flat_P.clone(), flat_P.clone()))",
          "for kept, given, partner in", "for kept, given, partner, *_ in"), "clone nothing"),
]  # fmt: skip


def greedy(ready_s, num_bytes, message_s):
    return greedy_counts(ready_s, num_bytes, message_s)


def by_reduce_scatter(num_values, rank, world_size):
    def mean_(gradient_P):
        part_S = torch.empty(num_values // world_size, dtype=torch.bfloat16)
        reduce_scatter(part_S, gradient_P.bfloat16())
        means_P = torch.empty(num_values, dtype=torch.bfloat16)
        all_gather(means_P, part_S / world_size)
        gradient_P.copy_(means_P)

    return mean_


def equal_parts(ready_s, num_bytes, message_s):
    tried = []
    for size in range(1, len(ready_s) + 1):
        counts = [size] * (len(ready_s) // size)
        counts += [len(ready_s) - sum(counts)] if sum(counts) < len(ready_s) else []
        tried.append((end_s(ready_s, num_bytes, message_s, counts), counts))
    return min(tried)[1]


def without_latency(ready_s, num_bytes, message_s):
    return best_counts(ready_s, num_bytes, Link(0.0, message_s.bytes_per_s))


BUCKETS = [
    (lambda ready_s, *_: [len(ready_s)], "one bucket: all bytes wait"),
    (lambda ready_s, *_: [1] * len(ready_s), "pays the latency each time"),
    (lambda *a: best(*a)[::-1], "from the last to the first"),
    (greedy, "waiting a moment"),
    (equal_parts, "equally many gradients in each"),
    (without_latency, "the latency is left out"),
    (lambda r, n, m: [sum(n)], "a list of bytes"),
    (lambda *a: [[k] for k in best(*a)], "not which ones"),
    (lambda *a: best(*a)[:-1] or [1], "exactly one bucket"),
    (lambda *a: [*best(*a), 0], "a bucket is empty"),
    (lambda *a: print(len(best(*a))), "without a return"),
    (lambda *a: len(best(*a)), "Return a list of whole numbers"),
    (mutant("06.2", "max(before_s, finished_s) + seconds", "max(before_s, finished_s + seconds)"),
     "Likely mistake"),
]  # fmt: skip

OWN_MEMORY = "rounded(gradient_P, lost_P)"
BACK_MEMORY = "rounded(mean_S, lost_S)"
LOST = "lost.copy_(wanted - sent.float())"
PLAIN = ".bfloat16()"
COMPRESSION = [
    (bf16(".mean(0)", ".sum(0)"), "sum instead of mean"),
    (bf16(".mean(0)", ".mean(0) / world_size"), "divided by world_size twice"),
    (bf16("gradient_P.copy_(means_P)", "gradient_P = means_P.float()"), "copy_"),
    (bf16("gradient_P.copy_(means_P)", "gradient_P.zero_()"), "all-zero gradients agree"),
    (bf16(f"all_gather(means_P, {BACK_MEMORY})", "means_P.zero_()\n        "
          f"means_P.view(world_size, -1)[rank] = {BACK_MEMORY}"), "hands out the others"),
    (bf16("gradient_P.copy_(means_P)",
          "gradient_P.copy_(means_P.view(world_size, -1).flip(0).flatten())"), "wrong places"),
    (bf16("dtype=torch.bfloat16", "dtype=torch.float32", "wanted.bfloat16()", "wanted.clone()"),
     "fp32 is still sent"),
    (bf16("means_P = torch.empty(num_values, dtype=torch.bfloat16)",
          "means_P = torch.empty(num_values)", BACK_MEMORY, f"{BACK_MEMORY}.float()"),
     "one of the two ways still sends fp32"),
    (by_reduce_scatter, "gloo's reduce_scatter"),
    (gathered_errors, "everybody sends everything"),
    (bf16(OWN_MEMORY, f"gradient_P{PLAIN}", BACK_MEMORY, f"mean_S{PLAIN}"),
     "feedback is forgotten"),
    (bf16(OWN_MEMORY, f"gradient_P{PLAIN}"), "what the first rounding loses is gone"),
    (bf16(BACK_MEMORY, f"mean_S{PLAIN}"), "what the second rounding loses is gone"),
    (summed_in_bf16, "what the second rounding loses is gone"),
    (bf16(LOST, "lost.copy_(values - sent.float())"), "the loss is reckoned from the gradient"),
    (bf16("wanted = values + lost", "wanted = values - lost"), "has the wrong sign"),
    (bf16(LOST, "pass", "gradient_P.copy_(means_P)",
          "lost_P.add_(gradient_P - means_P.float())\n        gradient_P.copy_(means_P)"),
     "instead of this rank's own part"),
    (bf16("gradient_P.copy_(means_P)", "gradient_P.copy_(means_P)\n        "
          "gradient_P.view(world_size, -1)[rank] = mean_S"), "have different means"),
    (bf16("return mean_", "return mean_(torch.ones(num_values))"), "must return `mean_`"),
]  # fmt: skip

WRONG = [
    *(("06.1", answer, words) for answer, words in HOPS),
    *(("06.2", answer, words) for answer, words in BUCKETS),
    *(("06.3", answer, words) for answer, words in OVERLAP),
    *(("06.4", answer, words) for answer, words in TOKENS),
    *(("06.5", answer, words) for answer, words in COMPRESSION),
]
