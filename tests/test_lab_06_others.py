"""Other right answers to lab 06 pass, and what its checks compare with is true."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_

from tests.wrong_builders_06 import mutant, right
from utils.checks.engine import EXERCISES, judge
from utils.techniques.data_parallel import broadcast_model


def recursive_mean(tensors, rank, world_size):
    """From the nearest partner to the farthest one, and recursive."""
    flat_P = torch.cat([tensor.flatten() for tensor in tensors])

    def swap(send, receive, partner):
        pair = dist.P2POp(dist.isend, send, partner), dist.P2POp(dist.irecv, receive, partner)
        for work in dist.batch_isend_irecv(list(pair)):
            work.wait()

    def halve(part, distance):
        if distance == world_size:
            part.div_(world_size)
            return
        lower, upper = part.tensor_split(2)
        mine, others = (upper, lower) if rank & distance else (lower, upper)
        space = torch.empty_like(mine)
        swap(others, space, rank ^ distance)
        mine.add_(space)
        halve(mine, 2 * distance)
        swap(mine, others, rank ^ distance)

    halve(flat_P, 1)
    for tensor in tensors:
        tensor.copy_(flat_P[: tensor.numel()].reshape(tensor.shape))
        flat_P = flat_P[tensor.numel() :]


def search_backwards(ready_s, num_bytes, message_s):
    """The ends of the buckets, found from the last gradient to the first."""
    ends = [0.0]
    for j in range(1, len(ready_s) + 1):
        ends.append(min(_end(i, j, ends, ready_s, num_bytes, message_s) for i in range(j)))
    counts, j = [], len(ready_s)
    while j:
        tried = [_end(i, j, ends, ready_s, num_bytes, message_s) for i in range(j)]
        counts.insert(0, j - tried.index(min(tried)))
        j -= counts[0]
    return counts


def _end(i, j, ends, ready_s, num_bytes, message_s):
    return max(ends[i], ready_s[j - 1]) + message_s(sum(num_bytes[i:j]))


class Overlap:
    """With an object instead of closures; divides when all have arrived."""

    def __init__(self, model, world_size, start_sum):
        broadcast_model(model)
        self.order = [p for p in model.parameters() if p.requires_grad]
        self.world_size, self.start_sum = world_size, start_sum
        self.left, self.works = list(self.order), []
        for parameter in self.order:
            parameter.register_post_accumulate_grad_hook(self.note)
        self.done = {id(p): False for p in self.order}

    def note(self, parameter):
        self.done[id(parameter)] = True
        while self.left and self.done[id(self.left[-1])]:
            self.works.append(self.start_sum(self.left.pop().grad.view(-1)))

    def __call__(self):
        for parameter in reversed(self.order):
            if not self.done[id(parameter)]:
                parameter.grad = torch.zeros_like(parameter)
                self.note(parameter)
        for work in reversed(self.works):
            work.wait()
        for parameter in self.order:
            parameter.grad.div_(self.world_size)
        self.left, self.works = list(self.order), []
        self.done = dict.fromkeys(self.done, False)


def one_message_each(model, optimizer, losses, max_norm):
    num_tokens = torch.zeros(1)
    for loss in losses:
        summed, count = loss()
        summed.backward()
        num_tokens += count
    dist.all_reduce(num_tokens)
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad /= num_tokens
        dist.all_reduce(parameter.grad)
    norm = float(clip_grad_norm_(model.parameters(), max_norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return norm


class FedBack:
    """Parts as a list of messages; errors remembered as what should have been sent."""

    def __init__(self, num_values, rank, world_size):
        self.rank, self.world_size = rank, world_size
        self.owed = [torch.zeros(num_values), torch.zeros(num_values // world_size)]

    def round(self, values, which):
        self.owed[which] += values
        sent = self.owed[which].to(torch.bfloat16)
        self.owed[which] -= sent
        return sent

    def __call__(self, gradient_P):
        parts = list(self.round(gradient_P, 0).chunk(self.world_size))
        received = [torch.empty_like(part) for part in parts]
        dist.all_to_all(received, parts)
        mean_S = self.round(sum(part.float() for part in received) / self.world_size, 1)
        dist.all_gather(received, mean_S)
        gradient_P.copy_(torch.cat(received))


OTHERS = [
    ("06.1", recursive_mean),
    ("06.2", search_backwards),
    ("06.3", Overlap),
    ("06.4", one_message_each),
    ("06.5", FedBack),
]


@pytest.mark.parametrize("key, answer", OTHERS)
def test_another_right_answer_passes(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def test_a_hook_that_raises_is_told_with_its_line():
    wrong = mutant("06.3", "finished.update(parameters)", "finished.append(parameters)")
    outcome = judge("06.3", wrong)
    assert outcome.status == "raised", outcome.message
    assert "no attribute 'append'" in outcome.message and "of on_gradients" in outcome.message


def every_way_to_cut(ready_s, num_bytes, message_s):
    def tried(first):
        if first == len(ready_s):
            return [(0.0, [])]
        return [(0.0, [n, *rest]) for n in range(1, len(ready_s) - first + 1)
                for _, rest in tried(first + n)]  # fmt: skip

    return min(tried(0))[1]


def test_trying_every_cut_is_stopped(monkeypatch):
    judge("06.2", None)
    monkeypatch.setitem(EXERCISES, "06.2", replace(EXERCISES["06.2"], seconds=1.0))
    slow = judge("06.2", lambda *a: [every_way_to_cut(*a), right["best_buckets"](*a)][1])
    assert slow.status == "stopped"
