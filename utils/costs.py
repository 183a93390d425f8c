"""Parameters, FLOPs and utilisation of a GPT, counted with a pencil and checked against torch.

How it works: parameters and matrix multiplications follow from the config alone. One multiply and
one add are two FLOPs; backward costs twice forward. Two counts are offered: 6ND, the rule of thumb
(6 FLOPs per parameter per token), and the exact one, which adds attention's T x T products.
Left out: norms, softmax, GELU and other element-wise work, as everyone leaves it out.
"""

from dataclasses import dataclass

from utils.config import GPTConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by place; `total` counts a tied embedding once."""

    token_embedding: int
    position_embedding: int
    block: int  # one block
    num_blocks: int
    final_norm: int
    output_layer: int  # 0 when tied to the token embedding

    @property
    def total(self) -> int:
        """All parameters of the model."""
        outside = self.token_embedding + self.position_embedding + self.final_norm
        return outside + self.num_blocks * self.block + self.output_layer


def block_tensor_sizes(config: GPTConfig) -> list[int]:
    """Values in each parameter tensor of one block, in the order of `model.parameters()`."""
    width, qkv_out = config.model_dim, config.model_dim + 2 * config.kv_dim
    weights_and_biases = [
        (width, width),  # attention norm: scale and shift
        (width * qkv_out, qkv_out),
        (width * width, width),  # attention output
        (width, width),  # feed-forward norm
        (width * config.feed_forward_dim, config.feed_forward_dim),  # widen
        (config.feed_forward_dim * width, width),  # narrow
    ]
    return [size for pair in weights_and_biases for size in pair[: 1 + config.bias]]


def tensor_sizes(config: GPTConfig) -> list[int]:
    """Values in each parameter tensor of the model, in the order of `model.parameters()`."""
    width = config.model_dim
    embeddings = [config.vocab_size * width, config.context_length * width]
    final_norm = [width] * (1 + config.bias)
    output = [] if config.tied_embeddings else [config.vocab_size * width]
    return embeddings + config.num_layers * block_tensor_sizes(config) + final_norm + output


def count_parameters(config: GPTConfig) -> ParameterCount:
    """Parameters of utils.model.GPT, by place, from its config."""
    width = config.model_dim
    return ParameterCount(
        token_embedding=config.vocab_size * width,
        position_embedding=config.context_length * width,
        block=sum(block_tensor_sizes(config)),
        num_blocks=config.num_layers,
        final_norm=width * (1 + config.bias),
        output_layer=0 if config.tied_embeddings else config.vocab_size * width,
    )


def rule_of_thumb_flops(num_parameters: float, num_tokens: float) -> float:
    """6ND: forward 2, backward 4 FLOPs per parameter per token (Kaplan et al. 2020)."""
    return 6.0 * num_parameters * num_tokens


def forward_flops(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """Matrix-multiplication FLOPs of one forward pass over B x T tokens, attention in full."""
    width, tokens = config.model_dim, batch_size * num_tokens
    projections = width * (width + 2 * config.kv_dim) + width * width
    linears = projections + 2 * width * config.feed_forward_dim
    attention = 2 * num_tokens * width  # scores, then the weighted sum, per token
    per_token = config.num_layers * (linears + attention) + width * config.vocab_size
    return 2 * tokens * per_token


def training_flops(config: GPTConfig, batch_size: int, num_tokens: int) -> int:
    """FLOPs of one training step: forward once, backward twice (two products per product)."""
    return 3 * forward_flops(config, batch_size, num_tokens)


def flops_by_part(config: GPTConfig, num_tokens: int) -> dict[str, int]:
    """Training FLOPs per token by part of the model; they add up to the exact count."""
    width, layers = config.model_dim, config.num_layers
    projections = width * (width + 2 * config.kv_dim) + width * width
    parts = {
        "feed-forward": layers * 2 * width * config.feed_forward_dim,
        "attention projections": layers * projections,
        "attention scores": layers * 2 * num_tokens * width,
        "output layer": width * config.vocab_size,
    }
    return {name: 6 * products for name, products in parts.items()}


def mfu(model_flops: float, seconds: float, peak_flops_per_s: float) -> float:
    """Model FLOPs utilisation: useful FLOPs over what the chip could have done (PaLM, app. B)."""
    if seconds <= 0 or peak_flops_per_s <= 0:
        raise ValueError("mfu needs a positive time and a positive peak rate.")
    return model_flops / (seconds * peak_flops_per_s)


def hfu(
    model_flops: float, recomputed_flops: float, seconds: float, peak_flops_per_s: float
) -> float:
    """Hardware FLOPs utilisation: like MFU, but FLOPs that were done twice count twice."""
    return mfu(model_flops + recomputed_flops, seconds, peak_flops_per_s)


def gpu_hours(total_flops: float, peak_flops_per_s: float, utilisation: float) -> float:
    """Hours of one chip that `total_flops` take at a given MFU."""
    if not 0 < utilisation <= 1:
        raise ValueError(f"The utilisation must lie in (0, 1], not {utilisation}.")
    return total_flops / (peak_flops_per_s * utilisation) / 3600


@dataclass(frozen=True)
class Recipe:
    """Bytes that training keeps for each parameter, whatever the batch."""

    name: str
    weight_bytes: int
    gradient_bytes: int
    master_bytes: int  # an fp32 copy beside 16-bit weights
    optimizer_bytes: int

    @property
    def bytes_per_parameter(self) -> int:
        """The sum that decides whether a model fits at all."""
        return self.weight_bytes + self.gradient_bytes + self.master_bytes + self.optimizer_bytes


RECIPES: tuple[Recipe, ...] = (
    Recipe("fp32, plain SGD", 4, 4, 0, 0),
    Recipe("fp32, momentum", 4, 4, 0, 4),
    Recipe("fp32, Adam", 4, 4, 0, 8),
    Recipe("bf16 weights and gradients, fp32 master, Adam", 2, 2, 4, 8),
    Recipe("bf16 weights, fp32 gradients and master, Adam", 2, 4, 4, 8),
    Recipe("bf16 weights, both gradients, fp32 master, Adam", 2, 6, 4, 8),
    Recipe("pure bf16, Adam", 2, 2, 0, 4),
)
