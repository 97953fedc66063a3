"""Configuration of the transformer."""

import dataclasses
import enum

from ringrl.errors import RingRLError, check_least, parse_choice


class Remat(enum.StrEnum):
    """Activations that the backward pass recomputes, in order of increasing memory savings.

    A blockwise feed-forward saves memory with `attention`, `layer` and `offload` only: `dots` keeps the products of all
    blocks, and so does `none` on a mesh, where JAX applies its policy to the inside of blocks too.
    """

    none = "none"  # nothing
    dots = "dots"  # all but matrix products
    attention = "attention"  # all but attention, of which output and logsumexp are kept (not with strategy=dense)
    layer = "layer"  # whole layers, whose inputs are kept
    offload = "offload"  # whole layers, whose inputs are kept in host memory


class Feedforward(enum.StrEnum):
    """The form of the feed-forward: two matrices and GELU, or LLaMA's three with SiLU."""

    gelu = "gelu"
    swiglu = "swiglu"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and options of the pre-norm transformer; see the shape legend for the letters."""

    layers: int = 2  # transformer layers (L)
    width: int = 64  # size of a token's vector (M)
    heads: int = 4  # attention heads (H)
    key_value_heads: int = 0  # heads of keys and values (K); 0 means as many as heads
    feedforward_width: int = 0  # hidden size of a feed-forward block (F); 0 means 4 M
    feedforward: Feedforward = Feedforward.gelu
    feedforward_block_size: int = 0  # tokens at a time; 0 means all at once (see `Remat` for combinations)
    rope: bool = True  # rotary position embedding in attention
    rope_base: float = 10_000.0  # rotary wavelengths run from 2 pi to 2 pi times this
    attention_dropout: float = 0.0  # fraction of attention weights dropped in training
    residual_dropout: float = 0.0  # fraction of each layer's outputs dropped in training
    remat: Remat = Remat.none
    unroll_layers: bool = True  # unroll the scan over layers: faster to run, slower to compile

    def __post_init__(self) -> None:
        for name, choices in (("feedforward", Feedforward), ("remat", Remat)):
            object.__setattr__(self, name, parse_choice(f"model.{name}", getattr(self, name), choices))
        check_least("model", self, dict.fromkeys(("layers", "width", "heads"), 1))
        none = ("key_value_heads", "feedforward_width", "feedforward_block_size")
        check_least("model", self, dict.fromkeys(none, 0))
        if self.width % self.heads:
            raise RingRLError(f"model.width={self.width} is not divisible by model.heads={self.heads}.")
        if self.key_value_heads and self.heads % self.key_value_heads:
            raise RingRLError(f"model.key_value_heads={self.key_value_heads} does not divide model.heads={self.heads}.")
        if self.rope and (self.width // self.heads) % 2:
            raise RingRLError(f"model.rope needs an even head size, not {self.width // self.heads}.")
        for name in ("attention_dropout", "residual_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise RingRLError(f"model.{name}={getattr(self, name)} is not in [0, 1).")
