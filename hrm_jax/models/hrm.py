"""HRM, the Hierarchical Reasoning Model: two recurrent modules with a one-step gradient.

References:
    Wang et al., Hierarchical Reasoning Model (https://arxiv.org/abs/2506.21734), §2.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.fields import require
from hrm_jax.layers.block import ReasoningModule
from hrm_jax.layers.feed_forward import swiglu_width
from hrm_jax.models import recurrent
from hrm_jax.models.recurrent import RecurrentConfig, RecurrentNetwork, Variables


@dataclasses.dataclass(frozen=True)
class HRMConfig(RecurrentConfig):
    """Sizes of an HRM; the names are those of the PyTorch reference's configuration.

    Attributes:
        H_layers: Blocks in the slow module; L_layers are those in the fast one.
        pos_encodings: "rope" or "learned".
        q_target: "second_forward" bootstraps q_continue from one more forward pass, and rows halt
            where q_halt > q_continue; "none" leaves q_continue out.

    The other fields are those of `RecurrentConfig`.
    """

    variant: ClassVar[str] = "hrm"

    H_layers: int = 4
    pos_encodings: Literal["rope", "learned"] = "rope"
    q_target: Literal["second_forward", "none"] = "second_forward"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.H_layers >= 1, f"model.H_layers: expected at least 1, got {self.H_layers}")
        self._check_heads()

    @property
    def puzzle_emb_len(self) -> int:
        """The reference's name of `prefix_len`."""
        return self.prefix_len


class HRM(RecurrentNetwork):
    """The parameters of HRM and the pieces that `think` composes."""

    config: HRMConfig

    def setup(self) -> None:
        super().setup()
        c = self.config
        level = functools.partial(
            ReasoningModule,
            num_heads=c.num_heads,
            width=swiglu_width(c.hidden_size, c.expansion, c.width_multiple),
            eps=c.rms_norm_eps,
            dtype=c.dtype,
            engine=c.attention,
        )
        self.H_level = level(c.H_layers)
        self.L_level = level(c.L_layers)

    @property
    def learnt(self) -> int:
        """Only the last update: the one-step gradient (§2.2 of the paper)."""
        return 1

    def update_L(self, z_H: Array, z_L: Array, x: Array) -> Array:
        """z_L ← L(z_L, z_H + x̃)."""
        return self.L_level(z_L, z_H + x, self._rotary(x.shape[1]))

    def update_H(self, z_H: Array, z_L: Array) -> Array:
        """z_H ← H(z_H, z_L)."""
        return self.H_level(z_H, z_L, self._rotary(z_H.shape[1]))


def init(config: HRMConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Raises:
        ConfigError: The config does not say how long puzzles are or how many tokens there are.
    """
    return recurrent.init(HRM(config), key)


def next_halting_values(
    config: HRMConfig,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """q_halt and q_continue after one more step, without any gradient (the "second forward")."""
    model = HRM(config)
    args = jax.lax.stop_gradient((variables, z_H, z_L, puzzle_rows))
    variables, z_H, z_L, puzzle_rows = args
    x = recurrent.apply(model, variables, inputs, puzzle_rows, method="embed")
    z_H, _ = recurrent.cycles(model, variables, z_H, z_L, x, config.H_cycles, config.L_cycles)
    return recurrent.apply(model, variables, z_H, method="halting_values")
