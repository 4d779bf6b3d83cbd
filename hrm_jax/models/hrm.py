"""HRM, the Hierarchical Reasoning Model: two recurrent modules with a one-step gradient.

References:
    Wang et al., Hierarchical Reasoning Model (https://arxiv.org/abs/2506.21734), §2.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from hrm_jax.fields import require_range
from hrm_jax.models.recurrent import RecurrentConfig


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
        require_range(self, "model", 1, 4096, "H_layers")

    @property
    def H_depth(self) -> int:
        return self.H_layers

    @property
    def learnt(self) -> int:
        """Only the last update: the one-step gradient (§2.2 of the paper)."""
        return 1

    @property
    def bootstraps(self) -> bool:
        return self.q_target == "second_forward"
