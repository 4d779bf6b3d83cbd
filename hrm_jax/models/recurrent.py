"""What HRM and TRM share: two recurrent states, and what reads puzzles in and answers out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.fields import require
from hrm_jax.kernels.attention import Engine
from hrm_jax.kernels.rotary import rotary_tables
from hrm_jax.layers.initializers import lecun_truncated_normal, truncated_normal

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RecurrentConfig:
    """Sizes that HRM and TRM have in common; the names are those of the PyTorch references.

    Attributes:
        seq_len: Grid tokens S of a puzzle; in a run's config 0, and then taken from the data.
        vocab_size: Number of tokens V, padding included; 0 likewise.
        num_puzzle_identifiers: Rows of the puzzle embedding table.
        puzzle_emb_ndim: Width of that table; 0 leaves the puzzle embedding out.
        hidden_size: Model width D.
        num_heads: Attention heads H.
        expansion: Width of the feed-forward layers over D, before rounding.
        width_multiple: What widths are rounded up to a multiple of; 256 in the references, whose
            code cannot load weights of other widths.
        L_layers: Blocks in the module that updates z_L.
        H_cycles, L_cycles: Updates of z_H in a step, and of z_L for each.
        pos_encodings: "rope", "learned" or "none".
        rope_theta: Base of the rotary wavelengths.
        rms_norm_eps: Added to the mean square in every norm.
        halt_max_steps: Most ACT steps for a puzzle in training.
        halt_exploration_prob: Probability that a row must think for a random minimum of steps.
        halt_threshold: Where there is no q_continue, rows halt where q_halt exceeds it. 0 is an
            even chance to be right; 2 is 88%.
        forward_dtype: Computation dtype, "bfloat16" or "float32"; parameters are float32.
        attention: What computes attention: `impl` of `hrm_jax.kernels.attention.attention`.
    """

    seq_len: int = 0
    vocab_size: int = 0
    num_puzzle_identifiers: int = 1
    puzzle_emb_ndim: int = 0
    hidden_size: int = 512
    num_heads: int = 8
    expansion: float = 4.0
    width_multiple: int = 256
    L_layers: int = 4
    H_cycles: int = 2
    L_cycles: int = 2
    pos_encodings: Literal["rope", "learned", "none"] = "rope"
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    halt_max_steps: int = 16
    halt_exploration_prob: float = 0.1
    halt_threshold: float = 0.0
    forward_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    attention: Engine = "auto"

    def __post_init__(self) -> None:
        for name in (
            *("num_puzzle_identifiers", "hidden_size", "num_heads"),
            *("L_layers", "H_cycles", "L_cycles", "halt_max_steps", "width_multiple"),
        ):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}: expected at least 1, got {value}")
        require(self.puzzle_emb_ndim >= 0, "model.puzzle_emb_ndim: expected 0 or more")
        require(self.expansion > 0, "model.expansion: expected more than 0")
        require(
            0 <= self.halt_exploration_prob <= 1,
            f"model.halt_exploration_prob: expected 0..1, got {self.halt_exploration_prob}",
        )

    def _check_heads(self) -> None:
        require(
            self.hidden_size % self.num_heads == 0,
            f"model.num_heads: {self.num_heads} does not divide hidden_size {self.hidden_size}",
        )
        require(
            self.pos_encodings != "rope" or self.hidden_size // self.num_heads % 2 == 0,
            "model.num_heads: rotary positions need an even head size, got "
            f"{self.hidden_size // self.num_heads}",
        )

    @property
    def prefix_len(self) -> int:
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


class RecurrentNetwork(nn.Module):
    """Embeddings, heads and initial states; a subclass says how the two states are updated.

    Collections: `params` (trained by the optimizer), `tables` (`puzzle_emb`, trained by sparse
    sign-SGD), `constants` (`H_init`, `L_init`: saved, never trained).
    """

    config: Any  # a RecurrentConfig

    def setup(self) -> None:
        c = self.config
        hidden = c.hidden_size
        embed = truncated_normal(1.0 / math.sqrt(hidden))
        self.embed_tokens = nn.Embed(c.vocab_size, hidden, embedding_init=embed)
        if c.pos_encodings == "learned":
            self.embed_pos = nn.Embed(c.prefix_len + c.seq_len, hidden, embedding_init=embed)
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

    @property
    def learnt(self) -> int:
        """How many updates of z_L at the end of an ACT step have a gradient, 1 to L_cycles."""
        raise NotImplementedError

    def update_L(self, z_H: Array, z_L: Array, x: Array) -> Array:
        """The new z_L; all are [B, P+S, D]."""
        raise NotImplementedError

    def update_H(self, z_H: Array, z_L: Array) -> Array:
        """The new z_H; all are [B, P+S, D]."""
        raise NotImplementedError

    def embed(
        self, inputs: Int[Array, "B S"], puzzle_rows: Float[Array, "B E"] | None
    ) -> Float[Array, "B T D"]:
        """x̃: puzzle prefix and tokens, with learned positions if any, times √D."""
        c = self.config
        # A product and not a gather, for these small vocabularies: its gradient is no slow scatter.
        x = jax.nn.one_hot(inputs, c.vocab_size) @ self.embed_tokens.embedding
        if puzzle_rows is not None:
            width = c.prefix_len * c.hidden_size
            prefix = jnp.pad(puzzle_rows, ((0, 0), (0, width - c.puzzle_emb_ndim)))
            x = jnp.concatenate([prefix.reshape(-1, c.prefix_len, c.hidden_size), x], axis=1)
        if c.pos_encodings == "learned":
            x = math.sqrt(0.5) * (x + self.embed_pos.embedding[: x.shape[1]])
        return (x * math.sqrt(c.hidden_size)).astype(c.dtype)

    def _rotary(self, length: int) -> tuple | None:
        c = self.config
        if c.pos_encodings != "rope":
            return None
        return rotary_tables(length, c.hidden_size // c.num_heads, c.rope_theta)

    def halting_values(self, z_H: Float[Array, "B T D"]) -> tuple[Array, Array]:
        """q_halt and q_continue [B], float32, from the first position."""
        q = self.q_head(z_H[:, 0].astype(jnp.float32))
        return q[:, 0], q[:, 1]

    def read(self, z_H: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        """Token logits [B, S, V], q_halt [B] and q_continue [B], float32."""
        logits = self.lm_head(z_H[:, self.config.prefix_len :]).astype(jnp.float32)
        return logits, *self.halting_values(z_H)

    def touch(self, inputs: Int[Array, "B S"], puzzle_rows: Array | None) -> None:
        """Runs every piece once, for initialisation."""
        x = self.embed(inputs, puzzle_rows)
        z_L = self.update_L(x, x, x)
        self.read(self.update_H(x, z_L))


def init(model: RecurrentNetwork, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    Raises:
        ConfigError: The config does not say how long puzzles are or how many tokens there are.
    """
    c = model.config
    for name in ("seq_len", "vocab_size"):
        require(getattr(c, name) >= 1, f"model.{name}: expected at least 1 to make a model")
    inputs = jnp.zeros((1, c.seq_len), jnp.int32)
    rows = jnp.zeros((1, c.puzzle_emb_ndim)) if c.puzzle_emb_ndim else None
    return dict(model.init(key, inputs, rows, method="touch"))


def apply(model: RecurrentNetwork, variables: Variables, *args: Any, method: str) -> Any:
    """`model.apply`, of which the type checker believes that it returns what `method` does."""
    return model.apply(variables, *args, method=method)


def cycles(
    model: RecurrentNetwork,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    x: Float[Array, "B T D"],
    n_H: int,
    n_L: int,
) -> tuple[Array, Array]:
    """n_H times: n_L updates of z_L, then one of z_H (none of z_H where n_H is 0)."""

    def fast(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z_H, z_L = carry
        return z_H, apply(model, variables, z_H, z_L, x, method="update_L")

    def slow(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z_H, z_L = jax.lax.fori_loop(0, n_L, fast, carry)
        return apply(model, variables, z_H, z_L, method="update_H"), z_L

    if n_H == 0:
        return jax.lax.fori_loop(0, n_L, fast, (z_H, z_L))
    return jax.lax.fori_loop(0, n_H, slow, (z_H, z_L))


def think(
    model: RecurrentNetwork,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> Thought:
    """One ACT step: without gradient except the last updates of z_L, `model.learnt`, and of z_H.

    Args:
        model: The network.
        variables: `params`, differentiated through the last updates, the embeddings and the heads.
        z_H, z_L: States before the step.
        inputs: Tokens.
        puzzle_rows: Rows of the puzzle table, one for each row of the batch, or None.

    Returns:
        The new states, detached, and what is read from z_H.
    """
    config, learnt = model.config, model.learnt
    frozen = jax.lax.stop_gradient(variables)
    x = apply(model, variables, inputs, puzzle_rows, method="embed")
    still = jax.lax.stop_gradient(x)
    z_H, z_L = jax.lax.stop_gradient((z_H, z_L))
    if config.H_cycles > 1:
        z_H, z_L = cycles(model, frozen, z_H, z_L, still, config.H_cycles - 1, config.L_cycles)
    if config.L_cycles > learnt:
        z_H, z_L = cycles(model, frozen, z_H, z_L, still, 0, config.L_cycles - learnt)
    for _ in range(learnt):
        z_L = apply(model, variables, z_H, z_L, x, method="update_L")
    z_H = apply(model, variables, z_H, z_L, method="update_H")
    logits, q_halt, q_continue = apply(model, variables, z_H, method="read")
    z_H, z_L = jax.lax.stop_gradient((z_H, z_L))
    return Thought(z_H, z_L, logits, q_halt, q_continue)
