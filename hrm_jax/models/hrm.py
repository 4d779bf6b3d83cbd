"""HRM, the Hierarchical Reasoning Model: two recurrent modules with a one-step gradient.

References:
    Wang et al., Hierarchical Reasoning Model (https://arxiv.org/abs/2506.21734), §2.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.configs import require
from hrm_jax.layers.block import ReasoningModule
from hrm_jax.layers.feed_forward import swiglu_width
from hrm_jax.layers.initializers import lecun_truncated_normal, truncated_normal
from hrm_jax.layers.rotary import rotary_tables

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class HRMConfig:
    """Sizes of an HRM; the names are those of the PyTorch reference's configuration.

    Attributes:
        seq_len: Grid tokens S of a puzzle; in a run's config 0, and then taken from the data.
        vocab_size: Number of tokens V, padding included; 0 likewise.
        num_puzzle_identifiers: Rows of the puzzle embedding table.
        puzzle_emb_ndim: Width of that table; 0 leaves the puzzle embedding out.
        hidden_size: Model width D.
        num_heads: Attention heads H.
        expansion: Width of the feed-forward layers over D, before rounding.
        H_layers, L_layers: Blocks in the slow and in the fast module.
        H_cycles, L_cycles: Updates of the slow module in a step, and of the fast one for each.
        pos_encodings: "rope" or "learned".
        rope_theta: Base of the rotary wavelengths.
        rms_norm_eps: Added to the mean square in every norm.
        halt_max_steps: Most ACT steps for a puzzle in training.
        halt_exploration_prob: Probability that a row must think for a random minimum of steps.
        q_target: "second_forward" bootstraps q_continue from one more forward pass, and rows halt
            where q_halt > q_continue; "none" leaves q_continue out.
        halt_threshold: With q_target "none", rows halt where q_halt exceeds it. 0 is an even
            chance to be right; 2 is 88%.
        forward_dtype: Computation dtype, "bfloat16" or "float32"; parameters are float32.
    """

    seq_len: int = 0
    vocab_size: int = 0
    num_puzzle_identifiers: int = 1
    puzzle_emb_ndim: int = 0
    hidden_size: int = 512
    num_heads: int = 8
    expansion: float = 4.0
    H_layers: int = 4
    L_layers: int = 4
    H_cycles: int = 2
    L_cycles: int = 2
    pos_encodings: Literal["rope", "learned"] = "rope"
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    halt_max_steps: int = 16
    halt_exploration_prob: float = 0.1
    q_target: Literal["second_forward", "none"] = "second_forward"
    halt_threshold: float = 0.0
    forward_dtype: Literal["bfloat16", "float32"] = "bfloat16"

    def __post_init__(self) -> None:
        for name in (
            *("num_puzzle_identifiers", "hidden_size", "num_heads"),
            *("H_layers", "L_layers", "H_cycles", "L_cycles", "halt_max_steps"),
        ):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}: expected at least 1, got {value}")
        require(
            self.hidden_size % self.num_heads == 0,
            f"model.num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}",
        )
        require(
            self.pos_encodings == "learned" or self.hidden_size // self.num_heads % 2 == 0,
            "model.num_heads: rotary positions need an even head size, got "
            f"{self.hidden_size // self.num_heads}",
        )
        require(self.puzzle_emb_ndim >= 0, "model.puzzle_emb_ndim: expected 0 or more")
        require(self.expansion > 0, "model.expansion: expected more than 0")
        require(
            0 <= self.halt_exploration_prob <= 1,
            f"model.halt_exploration_prob: expected 0..1, got {self.halt_exploration_prob}",
        )

    @property
    def puzzle_emb_len(self) -> int:
        """P: prefix tokens that the puzzle embedding takes."""
        return -(-self.puzzle_emb_ndim // self.hidden_size)

    @property
    def dtype(self) -> Any:
        """The computation dtype."""
        return jnp.dtype(self.forward_dtype)


class Thought(struct.PyTreeNode):
    """What one ACT step of the network gives.

    Attributes:
        z_H, z_L: New states [B, P+S, D] in the computation dtype, without gradient.
        logits: Token logits [B, S, V], float32.
        q_halt, q_continue: Halting values [B], float32.
    """

    z_H: Float[Array, "B T D"]
    z_L: Float[Array, "B T D"]
    logits: Float[Array, "B S V"]
    q_halt: Float[Array, " B"]
    q_continue: Float[Array, " B"]


class HRM(nn.Module):
    """The parameters of HRM and the pieces that `think` composes.

    Collections: `params` (trained by the optimizer), `tables` (`puzzle_emb`, trained by sparse
    sign-SGD), `constants` (`H_init`, `L_init`: saved, never trained).
    """

    config: HRMConfig

    def setup(self) -> None:
        c = self.config
        hidden = c.hidden_size
        embed = truncated_normal(1.0 / math.sqrt(hidden))
        self.embed_tokens = nn.Embed(c.vocab_size, hidden, embedding_init=embed)
        if c.pos_encodings == "learned":
            self.embed_pos = nn.Embed(c.puzzle_emb_len + c.seq_len, hidden, embedding_init=embed)
        level = functools.partial(
            ReasoningModule,
            num_heads=c.num_heads,
            width=swiglu_width(hidden, c.expansion),
            eps=c.rms_norm_eps,
            dtype=c.dtype,
        )
        self.H_level = level(c.H_layers)
        self.L_level = level(c.L_layers)
        self.lm_head = nn.Dense(
            c.vocab_size, use_bias=False, dtype=c.dtype, kernel_init=lecun_truncated_normal
        )
        self.q_head = nn.Dense(
            2,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(-5.0),
        )
        for name in ("H_init", "L_init"):
            self.variable(
                "constants",
                name,
                lambda: truncated_normal(1.0)(self.make_rng("params"), (hidden,)),
            )
        if c.puzzle_emb_ndim:
            shape = (c.num_puzzle_identifiers, c.puzzle_emb_ndim)
            self.variable("tables", "puzzle_emb", jnp.zeros, shape, jnp.float32)

    def embed(
        self, inputs: Int[Array, "B S"], puzzle_rows: Float[Array, "B E"] | None
    ) -> Float[Array, "B T D"]:
        """x̃: puzzle prefix and tokens, with learned positions if any, times √D."""
        c = self.config
        # A product and not a gather, for these small vocabularies: its gradient is no slow scatter.
        x = jax.nn.one_hot(inputs, c.vocab_size) @ self.embed_tokens.embedding
        if puzzle_rows is not None:
            width = c.puzzle_emb_len * c.hidden_size
            prefix = jnp.pad(puzzle_rows, ((0, 0), (0, width - c.puzzle_emb_ndim)))
            x = jnp.concatenate([prefix.reshape(-1, c.puzzle_emb_len, c.hidden_size), x], axis=1)
        if c.pos_encodings == "learned":
            x = math.sqrt(0.5) * (x + self.embed_pos.embedding[: x.shape[1]])
        return (x * math.sqrt(c.hidden_size)).astype(c.dtype)

    def _rotary(self, length: int) -> tuple | None:
        c = self.config
        if c.pos_encodings == "learned":
            return None
        return rotary_tables(length, c.hidden_size // c.num_heads, c.rope_theta)

    def update_L(self, z_H: Array, z_L: Array, x: Array) -> Array:
        """z_L ← L(z_L, z_H + x̃)."""
        return self.L_level(z_L, z_H + x, self._rotary(x.shape[1]))

    def update_H(self, z_H: Array, z_L: Array) -> Array:
        """z_H ← H(z_H, z_L)."""
        return self.H_level(z_H, z_L, self._rotary(z_H.shape[1]))

    def halting_values(self, z_H: Float[Array, "B T D"]) -> tuple[Array, Array]:
        """q_halt and q_continue [B], float32, from the first position."""
        q = self.q_head(z_H[:, 0].astype(jnp.float32))
        return q[:, 0], q[:, 1]

    def read(self, z_H: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        """Token logits [B, S, V], q_halt [B] and q_continue [B], float32."""
        logits = self.lm_head(z_H[:, self.config.puzzle_emb_len :]).astype(jnp.float32)
        return logits, *self.halting_values(z_H)

    def touch(self, inputs: Int[Array, "B S"], puzzle_rows: Array | None) -> None:
        """Runs every piece once, for initialisation."""
        x = self.embed(inputs, puzzle_rows)
        z_L = self.update_L(x, x, x)
        self.read(self.update_H(x, z_L))


def init(config: HRMConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Raises:
        ConfigError: The config does not say how long puzzles are or how many tokens there are.
    """
    for name in ("seq_len", "vocab_size"):
        require(getattr(config, name) >= 1, f"model.{name}: expected at least 1 to make a model")
    inputs = jnp.zeros((1, config.seq_len), jnp.int32)
    rows = jnp.zeros((1, config.puzzle_emb_ndim)) if config.puzzle_emb_ndim else None
    return dict(HRM(config).init(key, inputs, rows, method="touch"))


def _apply(model: HRM, variables: Variables, *args: Any, method: str) -> Any:
    return model.apply(variables, *args, method=method)


def _cycles(
    model: HRM, variables: Variables, z_H: Array, z_L: Array, x: Array, n_H: int, n_L: int
) -> tuple[Array, Array]:
    """n_H times: n_L updates of z_L, then one of z_H (none of z_H where n_H is 0)."""

    def fast(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z_H, z_L = carry
        return z_H, _apply(model, variables, z_H, z_L, x, method="update_L")

    def slow(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z_H, z_L = jax.lax.fori_loop(0, n_L, fast, carry)
        return _apply(model, variables, z_H, z_L, method="update_H"), z_L

    if n_H == 0:
        return jax.lax.fori_loop(0, n_L, fast, (z_H, z_L))
    return jax.lax.fori_loop(0, n_H, slow, (z_H, z_L))


def think(
    config: HRMConfig,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> Thought:
    """One ACT step: all cycles without gradient except the last update of z_L and of z_H.

    Args:
        config: Sizes.
        variables: `params`, differentiated through the last two updates, the embeddings and the
            heads only (one-step gradient, §2.2 of the paper).
        z_H, z_L: States before the step.
        inputs: Tokens.
        puzzle_rows: Rows of the puzzle table, one for each row of the batch, or None.

    Returns:
        The new states, detached, and what is read from z_H.
    """
    model = HRM(config)
    frozen = jax.lax.stop_gradient(variables)
    x = _apply(model, variables, inputs, puzzle_rows, method="embed")
    still = jax.lax.stop_gradient(x)
    z_H, z_L = jax.lax.stop_gradient((z_H, z_L))
    if config.H_cycles > 1:
        z_H, z_L = _cycles(model, frozen, z_H, z_L, still, config.H_cycles - 1, config.L_cycles)
    if config.L_cycles > 1:
        z_H, z_L = _cycles(model, frozen, z_H, z_L, still, 0, config.L_cycles - 1)
    z_L = _apply(model, variables, z_H, z_L, x, method="update_L")
    z_H = _apply(model, variables, z_H, z_L, method="update_H")
    logits, q_halt, q_continue = _apply(model, variables, z_H, method="read")
    z_H, z_L = jax.lax.stop_gradient((z_H, z_L))
    return Thought(z_H, z_L, logits, q_halt, q_continue)


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
    x = _apply(model, variables, inputs, puzzle_rows, method="embed")
    z_H, _ = _cycles(model, variables, z_H, z_L, x, config.H_cycles, config.L_cycles)
    return _apply(model, variables, z_H, method="halting_values")
