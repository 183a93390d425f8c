"""A link that is late, and a log of what was finished, sent and waited for: lab 06's witness.

How it works: `LateLink` starts sums and delivers none before somebody waits for it. So a forgotten
wait is a wrong gradient on every run, and "was it sent during backward?" is a question about the
order of the log's entries; no clock is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass
class Log:
    """What happened in one step on one rank, in order: ("finished" | "sent" | "waited", name)."""

    entries: list[tuple[str, str]] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)  # changed while they travelled

    def note(self, what: str, name: str = "") -> None:
        """Add an entry."""
        self.entries.append((what, name))

    def names(self, what: str) -> list[str]:
        """The names of all entries of one kind, in order."""
        return [name for kind, name in self.entries if kind == what]


@dataclass
class Message:
    """A tensor on its way; `copy` is what the link carries."""

    link: LateLink
    tensor: Tensor
    name: str
    copy: Tensor
    snapshot: Tensor
    is_summed: bool = False

    def wait(self) -> None:
        """Let it arrive, after all that were sent before it."""
        self.link.log.note("waited", self.name)
        self.link.sum_up_to(self)
        if not torch.equal(self.tensor, self.snapshot):
            self.link.log.touched.append(self.name)
        self.tensor.copy_(self.copy)


class LateLink:
    """`start_sum(tensor)` returns at once, and nothing arrives before it is waited for."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.log = model, Log()
        self.messages: list[Message] = []

    def start_sum(self, tensor: Tensor) -> Message:
        """Send a tensor off; its `wait` leaves the sum over ranks in it."""
        names = [n for n, p in self.model.named_parameters() if _same_memory(p.grad, tensor)]
        name = names[0] if names else "no gradient"
        self.log.note("sent", name)
        copies = tensor.detach().clone(), tensor.detach().clone()
        self.messages.append(Message(self, tensor.detach(), name, *copies))
        return self.messages[-1]

    def sum_up_to(self, last: Message) -> None:
        """Sum on all ranks what was sent, in the order of sending."""
        for message in self.messages:
            if not message.is_summed:
                dist.all_reduce(message.copy)
                message.is_summed = True
            if message is last:
                break


def _same_memory(gradient: Tensor | None, tensor: Tensor) -> bool:
    same = gradient is not None and gradient.data_ptr() == tensor.data_ptr()
    return same and gradient.numel() == tensor.numel()
