"""TRM, the Tiny Recursive Model: one small network for both states, with gradient through a round.

References:
    Jolicoeur-Martineau, Less is More: Recursive Reasoning with Tiny Networks
    (https://arxiv.org/abs/2510.04871), §4. Its y is z_H here and its z is z_L, as in its code.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hrm_jax.fields import require, require_range
from hrm_jax.models.recurrent import RecurrentConfig


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

    There is no q_continue: rows halt where q_halt > halt_threshold.
    """

    L_layers: int = 2
    H_cycles: int = 3
    L_cycles: int = 6
    puzzle_emb_len: int = 16
    mlp_t: bool = False

    variant: ClassVar[str] = "trm"

    def unused(self) -> dict[str, str]:
        alone = {} if self.puzzle_emb_ndim else {"puzzle_emb_len": "puzzle_emb_ndim is 0"}
        of_attention = dict.fromkeys(
            ("num_heads", "rope_theta", "attention") if self.mlp_t else (),
            "mlp_t: an MLP over the positions takes the place of attention",
        )
        if self.mixer == "units":
            alone = {"puzzle_emb_len": "mixer is 'units'"}
        return {**super().unused(), **alone, **of_attention}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range(self, "model", 0, 2**20, "puzzle_emb_len")
        require(
            not (self.mlp_t and self.mixer == "units"),
            "model.mlp_t: an MLP over the positions, but model.mixer is 'units'; expected one",
        )
        needed = -(-self.puzzle_emb_ndim // self.hidden_size)
        require(
            self.puzzle_emb_len == 0 or self.puzzle_emb_len >= needed,
            f"model.puzzle_emb_len: puzzle_emb_ndim {self.puzzle_emb_ndim} fills {needed} tokens, "
            f"expected 0 or at least as many, got {self.puzzle_emb_len}",
        )

    @property
    def learnt(self) -> int:
        """All updates of the last round (§4.1 of the paper)."""
        return self.L_cycles

    @property
    def mixing(self) -> Literal["attention", "positions", "units"]:
        """As `mlp_t` says (§4.5 of the paper), or as `mixer` does."""
        return "positions" if self.mlp_t else self.mixer

    @property
    def prefix_len(self) -> int:
        asked = self.puzzle_emb_len if self.puzzle_emb_ndim and self.mixer != "units" else 0
        return asked or super().prefix_len
