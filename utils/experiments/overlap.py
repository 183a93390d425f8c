"""One data-parallel step on a slowed link, recorded: what each rank did, and when.

How it works: every rank trains the same small GPT through a `SlowLink` and notes forward, backward
and each message. "after" waits with all messages for the end of backward, one a parameter;
"overlapped" sends buckets while backward goes on. The last of a few steps is what comes back.

Left out: the optimizer; it works the same in both.
"""

import torch
from torch import Tensor, nn

from utils.config import GPTConfig
from utils.model import build_gpt, next_token_loss
from utils.ranks import Event, EventLog, SlowLink
from utils.ranks.slow_link import SlowWork
from utils.techniques.data_parallel import DataParallel
from utils.timeline_plot import Span

MODES = ("after", "overlapped")
KIND_OF = {"forward": "forward", "backward": "backward", "waiting": "waiting"}
KIND_OF |= {"all_reduce": "communication"}


def recorded_step(
    rank: int, world_size: int, mode: str, config: GPTConfig, batch_size: int,
    bytes_per_s: float, bucket_bytes: int, num_warm: int = 2,
) -> list[Event]:  # fmt: skip
    """The events of one step after `num_warm` others; a worker for `run_ranks`."""
    if mode not in MODES:
        raise ValueError(f"The mode must be one of {MODES}, not {mode!r}.")
    model = build_gpt(config)
    tokens_BT = torch.randint(config.vocab_size, (batch_size, config.context_length))
    sender = _Sender()
    network: nn.Module = model
    if mode == "overlapped":
        network = DataParallel(
            model, world_size, start_sum=sender.send,
            first_bytes=bucket_bytes, bucket_bytes=bucket_bytes,
        )  # fmt: skip
    for _ in range(num_warm + 1):
        sender.log = EventLog(rank)
        with SlowLink(bytes_per_s, sender.log) as sender.link:
            _step(network, tokens_BT, sender, world_size if mode == "after" else 0)
        model.zero_grad()
    return sender.log.events()


def _step(network: nn.Module, tokens_BT: Tensor, sender: "_Sender", world_size: int) -> None:
    """Forward and backward; with a world size also the messages after backward."""
    with sender.log.span("forward"):
        loss = next_token_loss(network, tokens_BT, tokens_BT)
    with sender.log.span("backward"):
        loss.backward()
    if world_size:
        for parameter in network.parameters():
            sender.send(parameter.grad.div_(world_size)).wait()


class _Sender:
    """Sums tensors over ranks through a slow link; waiting for one is an event of its own."""

    link: SlowLink
    log: EventLog

    def send(self, flat_P: Tensor) -> "_LoggedWork":
        """Issue an all-reduce and return at once."""
        return _LoggedWork(self.link.all_reduce(flat_P), self.log)


class _LoggedWork:
    """A message under way; whoever waits for it is noted down as waiting."""

    def __init__(self, work: SlowWork, log: EventLog) -> None:
        self._work, self._log = work, log

    def wait(self) -> None:
        with self._log.span("waiting"):
            self._work.wait()


def as_spans(by_rank: list[list[Event]]) -> list[Span]:
    """The events of all ranks as bars, two lanes a rank."""
    return [
        Span(f"rank {event.rank} {event.lane}", KIND_OF[event.name], event.start_s, event.end_s)
        for events in by_rank
        for lane in ("compute", "communication")
        for event in events
        if event.lane == lane
    ]


def waiting_s(events: list[Event]) -> float:
    """Seconds in which this rank computed nothing: the communication that nothing hides."""
    return sum(event.end_s - event.start_s for event in events if event.name == "waiting")


def step_s(events: list[Event]) -> float:
    """Seconds from the start of forward to the end of the last message."""
    return max(event.end_s for event in events) - min(event.start_s for event in events)
