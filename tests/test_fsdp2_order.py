"""When FSDP2 gathers: a block ahead with prefetch, just in time without."""

import pytest

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers import TrainingJob
from utils.peers.fsdp2 import Fsdp2System
from utils.peers.harness import batches, parts_of
from utils.ranks import recorder, run_ranks

CONFIG = GPTConfig(3, 2, 32, 16, 64)
JOB = TrainingJob(CONFIG, batch_size=8, num_steps=1)


def order_of_forward(rank, world_size, options):
    """What happens in one forward pass, in order; G is an all-gather, a digit a block at work."""
    model = build_gpt(CONFIG)
    happened = []
    for number, block in enumerate(model.blocks):
        block.attention_norm.register_forward_pre_hook(
            lambda *_, number=number: happened.append(str(number))
        )
    system = Fsdp2System(model, rank, world_size, JOB, **options)
    ((tokens_BT, _),) = parts_of(next(batches(JOB)), rank, world_size, 1)
    recorder.listen(lambda call: happened.append("G") if call.kind == "all_gather" else None)
    system.model(tokens_BT)
    return "".join(happened)


@pytest.mark.parametrize("options, order", [({}, "GG0G1G2"), ({"prefetch": True}, "GGG0G12")])
def test_the_order_of_gathers_and_blocks(options, order):
    """The first gather is the root's."""
    assert run_ranks(order_of_forward, 2, options, quiet=True) == [order, order]
