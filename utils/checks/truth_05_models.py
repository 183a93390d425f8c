"""Lab 05: the blocks that its judges run, random and the same each time."""

import torch
from torch import Tensor, nn

from utils.config import GPTConfig
from utils.model import Block


class AdaptedLinear(nn.Module):
    """A linear layer with a low-rank correction beside it: base(x) + up(down(x))."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """... x in_features -> ... x out_features."""
        return self.base(x) + self.up(self.down(x))


def build_blocks(config: GPTConfig, adapter_rank: int = 0) -> list[Block]:
    """The blocks of a config, random and the same each time, with adapters if a rank is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        blocks = [Block(config) for _ in range(config.num_layers)]
        for block in blocks if adapter_rank else ():
            for part, name in (
                (block.attention, "query_key_value"),
                (block.attention, "output"),
                (block.feed_forward, "widen"),
                (block.feed_forward, "narrow"),
            ):
                setattr(part, name, AdaptedLinear(getattr(part, name), adapter_rank))
    return blocks


def random_input(config: GPTConfig, batch_size: int = 1) -> Tensor:
    """x_BTD, the same each time."""
    generator = torch.Generator().manual_seed(6)
    shape = batch_size, config.context_length, config.model_dim
    return torch.randn(shape, generator=generator)
