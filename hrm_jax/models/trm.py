"""TRM, the Tiny Recursive Model: one small network for both states, with gradient through a round.

References:
    Jolicoeur-Martineau, Less is More: Recursive Reasoning with Tiny Networks
    (https://arxiv.org/abs/2510.04871), §4. Its y is z_H here and its z is z_L, as in its code.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from jaxtyping import Array, PRNGKeyArray

from hrm_jax.fields import require
from hrm_jax.layers.block import ReasoningModule
from hrm_jax.layers.feed_forward import swiglu_width
from hrm_jax.models import recurrent
from hrm_jax.models.recurrent import RecurrentConfig, RecurrentNetwork


@dataclasses.dataclass(frozen=True)
class TRMConfig(RecurrentConfig):
    """Sizes of a TRM; the names are those of the public PyTorch code's configuration.

    Attributes:
        L_layers: Blocks of the network.
        H_cycles, L_cycles: Rounds in a step (T in the paper), and updates of z_L in each (n).
        puzzle_emb_len: Prefix tokens P that the puzzle embedding takes, zeros behind it; 0 takes as
            many as it fills. Without a puzzle embedding there is no prefix.
        mlp_t: Whether an MLP over the P+S positions takes the place of attention. Puzzles then
            have all the same length.
        q_target: "none": there is no q_continue, rows halt where q_halt > halt_threshold.

    The other fields are those of `RecurrentConfig`.
    """

    L_layers: int = 2
    H_cycles: int = 3
    L_cycles: int = 6
    puzzle_emb_len: int = 16
    mlp_t: bool = False

    variant: ClassVar[str] = "trm"
    q_target: ClassVar[Literal["none"]] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mlp_t:
            self._check_heads()
        needed = -(-self.puzzle_emb_ndim // self.hidden_size)
        require(
            self.puzzle_emb_len == 0 or self.puzzle_emb_len >= needed,
            f"model.puzzle_emb_len: puzzle_emb_ndim {self.puzzle_emb_ndim} fills {needed} tokens, "
            f"expected 0 or at least as many, got {self.puzzle_emb_len}",
        )

    @property
    def prefix_len(self) -> int:
        """P: prefix tokens that the puzzle embedding takes."""
        return (self.puzzle_emb_len if self.puzzle_emb_ndim else 0) or super().prefix_len


class TRM(RecurrentNetwork):
    """The parameters of TRM and the pieces that `think` composes."""

    config: TRMConfig

    def setup(self) -> None:
        super().setup()
        c = self.config
        length = c.prefix_len + c.seq_len
        positions_width = swiglu_width(length, c.expansion, c.width_multiple)
        self.L_level = ReasoningModule(
            c.L_layers,
            num_heads=c.num_heads,
            width=swiglu_width(c.hidden_size, c.expansion, c.width_multiple),
            eps=c.rms_norm_eps,
            dtype=c.dtype,
            positions_width=positions_width if c.mlp_t else 0,
            engine=c.attention,
        )

    @property
    def learnt(self) -> int:
        """All updates of the last round (§4.1 of the paper)."""
        return self.config.L_cycles

    def update_L(self, z_H: Array, z_L: Array, x: Array) -> Array:
        """z_L ← net(z_L, z_H + x̃)."""
        return self.L_level(z_L, z_H + x, self._rotary(x.shape[1]))

    def update_H(self, z_H: Array, z_L: Array) -> Array:
        """z_H ← net(z_H, z_L)."""
        return self.L_level(z_H, z_L, self._rotary(z_H.shape[1]))


def init(config: TRMConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Raises:
        ConfigError: The config does not say how long puzzles are or how many tokens there are.
    """
    return recurrent.init(TRM(config), key)
