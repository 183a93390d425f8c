"""What shapes the model: one frozen config, and presets from a laptop to Llama 2's widths."""

from dataclasses import dataclass

ATTENTIONS = ("explicit", "fused")


@dataclass(frozen=True)
class GPTConfig:
    """Every choice that shapes the model; `replace(config, ...)` makes a variant."""

    num_layers: int = 4
    num_heads: int = 4
    model_dim: int = 128
    context_length: int = 128
    vocab_size: int = 256  # one token per byte: no tokenizer to download
    ff_dim: int | None = None  # None means 4 * model_dim, as in GPT-2
    num_kv_heads: int | None = None  # None means num_heads; fewer is grouped-query attention
    dropout: float = 0.0
    attention: str = "fused"  # "explicit" writes the T x T matrix to memory, "fused" does not
    bias: bool = True
    tied_embeddings: bool = False  # the output layer reuses the token embedding

    def __post_init__(self) -> None:
        """Refuse shapes that cannot work."""
        sizes = ("num_layers", "num_heads", "model_dim", "context_length", "vocab_size")
        for name in (*sizes, "feed_forward_dim", "kv_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for whole, part in (("model_dim", "num_heads"), ("num_heads", "kv_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} ({getattr(self, whole)}) must be a multiple of "
                    f"{part} ({getattr(self, part)})."
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}.")
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}, not {self.attention!r}.")

    @property
    def head_dim(self) -> int:
        """Width of one head, K."""
        return self.model_dim // self.num_heads

    @property
    def feed_forward_dim(self) -> int:
        """Width of the feed-forward layer, F. Not stored, so `replace` cannot leave it behind."""
        return 4 * self.model_dim if self.ff_dim is None else self.ff_dim

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, G."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def kv_dim(self) -> int:
        """Width of all key heads together, G * K; the values have the same."""
        return self.kv_heads * self.head_dim


PRESETS: dict[str, GPTConfig] = {
    "laptop": GPTConfig(),
    "laptop-wide": GPTConfig(num_layers=6, num_heads=8, model_dim=256),
    "laptop-deep": GPTConfig(num_layers=16, model_dim=64),  # activations outweigh weights
    "gpt2-124m": GPTConfig(12, 12, 768, 1024, 50257, tied_embeddings=True),
    "gpt2-1.5b": GPTConfig(48, 25, 1600, 1024, 50257, tied_embeddings=True),
    # Llama 2's widths. Its gated layer has three D x 28,672 matrices; two of D x 43,008 hold the
    # same number of weights and cost the same FLOPs, so that our plain layer gives its bill.
    "llama2-7b-shape": GPTConfig(32, 32, 4096, 4096, 32000, ff_dim=16512, bias=False),
    "llama2-70b-shape": GPTConfig(80, 64, 8192, 4096, 32000, 43008, 8, bias=False),
}
