"""A small GPT: the one model that every technique of the course is tried on.

How it works: token and position embeddings, `num_layers` pre-norm blocks (attention, then a GELU
feed-forward layer, each added to its input), a last norm, and a linear layer back to the tokens.
What is left out on purpose: precision, ranks, checkpointing. Techniques wrap the model from
outside, so this file never changes.

Shape suffixes: B batch, T tokens, D model width, F feed-forward width, H heads, G key/value heads,
K head width, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.config import GPTConfig


class Attention(nn.Module):
    """Causal self-attention; each token looks at itself and at the tokens before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_dim
        self.query_key_value = nn.Linear(width, width + 2 * config.kv_dim, bias=config.bias)
        self.output = nn.Linear(width, width, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        if config.attention == "explicit":
            future_TT = torch.ones(config.context_length, config.context_length).triu(1).bool()
            self.register_buffer("future_TT", future_TT, persistent=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x_BTD -> attended_BTD, before the residual is added."""
        config, (batch, tokens, width) = self.config, x_BTD.shape
        q_BTD, k_BTG, v_BTG = self.query_key_value(x_BTD).split(
            [width, config.kv_dim, config.kv_dim], dim=-1
        )
        q_BHTK, k_BHTK, v_BHTK = (self._heads(part) for part in (q_BTD, k_BTG, v_BTG))
        attend = self._explicit if config.attention == "explicit" else self._fused
        y_BHTK = attend(q_BHTK, k_BHTK, v_BHTK)
        return self.output(y_BHTK.transpose(1, 2).reshape(batch, tokens, width))

    def _heads(self, part_BTD: Tensor) -> Tensor:
        """Split the last dimension into heads; repeat heads that several queries share."""
        batch, tokens, width = part_BTD.shape
        num_heads = width // self.config.head_dim
        part_BHTK = part_BTD.view(batch, tokens, num_heads, -1).transpose(1, 2)
        repeats = self.config.num_heads // num_heads
        return part_BHTK if repeats == 1 else part_BHTK.repeat_interleave(repeats, dim=1)

    def _explicit(self, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
        """Softmax attention as in the textbook: the T x T weights exist in memory."""
        tokens = q_BHTK.shape[2]
        k_BHTK, v_BHTK = k_BHTK.contiguous(), v_BHTK.contiguous()
        scores_BHTT = (q_BHTK / math.sqrt(self.config.head_dim)) @ k_BHTK.transpose(2, 3)
        scores_BHTT = scores_BHTT.masked_fill(self.future_TT[:tokens, :tokens], float("-inf"))
        return self.dropout(scores_BHTT.softmax(dim=-1)) @ v_BHTK

    def _fused(self, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
        """The same numbers from one kernel that never stores the T x T weights."""
        dropout = self.config.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, dropout_p=dropout, is_causal=True
        )


class FeedForward(nn.Module):
    """Widen, GELU, narrow."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.widen = nn.Linear(config.model_dim, config.feed_forward_dim, bias=config.bias)
        self.narrow = nn.Linear(config.feed_forward_dim, config.model_dim, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x_BTD -> y_BTD, before the residual is added."""
        return self.narrow(F.gelu(self.widen(x_BTD)))


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.model_dim, bias=config.bias)
        self.attention = Attention(config)
        self.feed_forward_norm = nn.LayerNorm(config.model_dim, bias=config.bias)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """x_BTD -> x_BTD with both sub-layers added."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD)))
        return x_BTD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTD)))


class GPT(nn.Module):
    """The whole model: tokens_BT -> logits_BTV."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.model_dim)
        self.position_embedding = nn.Embedding(config.context_length, config.model_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.model_dim, bias=config.bias)
        self.output = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.output.weight = self.token_embedding.weight
        self._start_small()

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """tokens_BT (integers below V, T at most context_length) -> logits_BTV."""
        tokens = tokens_BT.shape[1]
        if tokens > self.config.context_length:
            raise ValueError(
                f"{tokens} tokens do not fit context_length={self.config.context_length}: "
                "cut the sequence or make a config with a longer context."
            )
        position_TD = self.position_embedding.weight[:tokens]
        x_BTD = self.dropout(self.token_embedding(tokens_BT) + position_TD)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.output(self.final_norm(x_BTD))

    def _start_small(self) -> None:
        """GPT-2's start: N(0, 0.02), and less for the layers that write into the residual."""
        residual_std = 0.02 / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                into_residual = name.endswith(("attention.output.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=residual_std if into_residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


def build_gpt(config: GPTConfig, seed: int = 0, device: str | torch.device = "cpu") -> GPT:
    """The model with reproducible weights; `device="meta"` gives shapes without any memory."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return GPT(config)


def next_token_loss(model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats of predicting targets_BT; the logits die with this call."""
    logits_BTV = model(tokens_BT)
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

