"""The recurrent network that HRM and TRM are two descriptions of.

Two states, z_H and z_L, are updated in turns by blocks over all positions; what reads puzzles in
and answers out is the same for both. A description (`HRMConfig`, `TRMConfig`) says with how many
modules that is done and how many updates have a gradient.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.fields import require, require_fields, require_memory, require_range
from hrm_jax.kernels.attention import Engine
from hrm_jax.kernels.rotary import rotary_tables
from hrm_jax.layers.attention import Attention
from hrm_jax.layers.block import PostNormBlock, ReasoningModule
from hrm_jax.layers.dense import Dense
from hrm_jax.layers.feed_forward import FeedForward, swiglu_width
from hrm_jax.layers.initializers import lecun_truncated_normal, truncated_normal
from hrm_jax.layers.units import Units, UnitsBlock, groups_of_cells

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RecurrentConfig:
    """What every description has; the names are those of the PyTorch references.

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
        mixer: "attention" over the positions of a sequence; or "units", where the states have a
            node for each value of each cell (`UnitsBlock`), so that the network commutes with the
            puzzle's symmetries. A puzzle embedding is then added to every node.
        unit_width: Channels that nodes send to each kind of their units.
        units: Kinds of units of the S cells (`hrm_jax.layers.units.Units`).
        values: N, how many of the last tokens are values that mean nothing but to be different, as
            the digits of Sudoku; 0 for none, and then a cell is one node. In a run's config both
            are left out, and come from the puzzle.
        restart_noise: Standard deviation of what is added to each node's first states, at random,
            in training, and where a puzzle is tried once more in evaluation.
        restart_after: ACT steps after which a row that does not want to halt starts anew, from
            other first states, in evaluation where the model may halt; 0 is never. What goes on
            past that (`hrm_jax.trained.browse`), or takes single steps, does not.
    """

    variant: ClassVar[str]

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
    mixer: Literal["attention", "units"] = "attention"
    unit_width: int = 16
    units: Units = ()
    values: int = 0
    restart_noise: float = 0.0
    restart_after: int = 0

    def unused(self) -> dict[str, str]:
        conditions = {
            "rope_theta": (self.pos_encodings != "rope", "pos_encodings is not 'rope'"),
            "halt_exploration_prob": (self.halt_max_steps == 1, "halt_max_steps is 1"),
            "halt_threshold": (self.bootstraps, "q_target: rows halt where q_halt > q_continue"),
        }
        found = {name: why for name, (holds, why) in conditions.items() if holds}
        if not self.restart_noise:
            found["restart_after"] = "restart_noise is 0"
        if self.mixer == "units":
            of_others = ("num_heads", "pos_encodings", "rope_theta", "attention")
            return found | dict.fromkeys(of_others, "mixer is 'units'")
        of_units = ("unit_width", "units", "values", "restart_noise", "restart_after")
        return found | dict.fromkeys(of_units, "mixer is not 'units'")

    def __post_init__(self) -> None:
        check = functools.partial(require_range, self, "model")
        check(1, 4096, "L_layers", "H_cycles", "L_cycles")
        check(1, 2**16, "num_heads", "halt_max_steps")
        check(1, 2**20, "hidden_size", "width_multiple")
        check(1, 2**31 - 1, "num_puzzle_identifiers")
        check(0, 2**20, "seq_len", "puzzle_emb_ndim")
        check(0, 2**24, "vocab_size")
        check(0, 1, "halt_exploration_prob")
        check(1e-30, 1, "rms_norm_eps")
        check(1, 1e15, "rope_theta")
        check(-1e30, 1e30, "halt_threshold")
        check(0, 1e3, "restart_noise")
        check(0, 2**16, "restart_after")
        check(1, 2**20, "unit_width")
        check(0, 2**24, "values")
        for kind in self.units if self.seq_len else ():
            groups_of_cells(kind, self.seq_len)
        require_fields(self, "model", "more than 0", lambda x: x > 0, "expansion")
        check(0, 2**10, "expansion")
        require(
            swiglu_width(self.hidden_size, self.expansion, 1) >= 1,
            f"model.expansion: {self.expansion} leaves feed-forward layers no width",
        )
        if self.mixing == "units":
            require(
                self.puzzle_emb_ndim <= self.hidden_size,
                f"model.puzzle_emb_ndim: expected at most hidden_size {self.hidden_size} with the "
                f"mixer 'units', got {self.puzzle_emb_ndim}",
            )
        if self.mixing == "attention":
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
    def H_depth(self) -> int:
        """Blocks of the module that updates z_H; 0: the module that updates z_L does that too."""
        return 0

    @property
    def learnt(self) -> int:
        """How many updates of z_L at the end of an ACT step have a gradient, 1 to L_cycles."""
        raise NotImplementedError

    @property
    def mixing(self) -> Literal["attention", "positions", "units"]:
        """How the positions of a block see one another: as `mixer` says, or by an MLP over them."""
        return self.mixer

    @property
    def bootstraps(self) -> bool:
        """Whether q_continue is trained towards the halting values of one more forward pass."""
        return False

    @property
    def prefix_len(self) -> int:
        """P: prefix tokens that the puzzle embedding takes."""
        return 0 if self.mixer == "units" else -(-self.puzzle_emb_ndim // self.hidden_size)

    def positions(self, seq_len: int) -> int:
        """T: positions of the states for so many tokens, P + S, or S · N nodes."""
        return self.prefix_len + seq_len * max(1, self.values)

    @property
    def known(self) -> int:
        """What a position can know of its token: which it is; or whether the value is its own."""
        return self.vocab_size - self.values + 2 * (self.values > 0)

    @property
    def read(self) -> int:
        """Logits that are read from a position: of all tokens; or of the others and its own."""
        return self.vocab_size - self.values + (self.values > 0)

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.forward_dtype)

    @property
    def weight_bytes(self) -> int:
        """What the variables take, float32, and the table of rotary positions."""
        size, length = self.hidden_size, self.prefix_len + self.seq_len

        def gated(width: int) -> int:
            return 3 * width * swiglu_width(width, self.expansion, self.width_multiple)

        kinds = len(self.units) + (self.values > 1)
        width = swiglu_width(size, self.expansion, self.width_multiple)
        mixing = {
            "attention": 4 * size * size,
            "positions": gated(length),
            "units": kinds * self.unit_width * (size + 2 * width),
        }[self.mixing]
        blocks = (self.L_layers + self.H_depth) * (mixing + gated(size))
        positions = {"learned": length * size, "rope": 2 * length * size // self.num_heads}
        if self.mixing == "units":
            positions = {}
        table = self.num_puzzle_identifiers * self.puzzle_emb_ndim
        states_and_heads = 2 * size + (self.known + self.read) * size + 2 * size + 2
        return 4 * (blocks + positions.get(self.pos_encodings, 0) + table + states_and_heads)


class Thought(struct.PyTreeNode):
    """What one ACT step of the network gives: new states in the computation dtype and without
    gradient, logits and halting values in float32."""

    z_H: Float[Array, "B T D"]
    z_L: Float[Array, "B T D"]
    logits: Float[Array, "B S V"]
    q_halt: Float[Array, " B"]
    q_continue: Float[Array, " B"]


def _block(c: RecurrentConfig) -> Callable[[], nn.Module]:
    """Makes a block of the modules."""
    width = swiglu_width(c.hidden_size, c.expansion, c.width_multiple)
    if c.mixing == "units":
        sizes = (c.units, max(1, c.values), width, c.unit_width)
        return functools.partial(UnitsBlock, *sizes, c.rms_norm_eps, c.dtype)
    mixer, axis = _mixer(c)
    return functools.partial(PostNormBlock, mixer, width, axis, c.rms_norm_eps, c.dtype)


def _mixer(c: RecurrentConfig) -> tuple[Callable[[Array], Array], int]:
    """What lets the positions of a block see one another, and the axis that it works along."""
    if c.mixing == "positions":  # the same MLP for each channel
        width = swiglu_width(c.prefix_len + c.seq_len, c.expansion, c.width_multiple)
        return lambda x: FeedForward("fused_swiglu", width, dtype=c.dtype, name="mlp_t")(x), -2

    def attend(x: Array) -> Array:
        size, heads, rotary = c.hidden_size, c.num_heads, None
        if c.pos_encodings == "rope":
            rotary = rotary_tables(x.shape[1], size // heads, c.rope_theta)
        layer = Attention(
            size, heads, fused=True, dtype=c.dtype, engine=c.attention, name="self_attn"
        )
        return layer(x, rotary)

    return attend, -1


class RecurrentNetwork(nn.Module):
    """The parameters, and the pieces that `think` composes.

    Collections: `params` (trained by the optimizer), `tables` (`puzzle_emb`, trained by sparse
    sign-SGD), `constants` (`H_init`, `L_init`: saved, never trained).
    """

    config: RecurrentConfig

    def setup(self) -> None:
        c = self.config
        hidden = c.hidden_size
        embed = truncated_normal(1.0 / math.sqrt(hidden))
        self.embed_tokens = nn.Embed(c.known, hidden, embedding_init=embed)
        if c.pos_encodings == "learned" and c.mixing != "units":
            self.embed_pos = nn.Embed(c.prefix_len + c.seq_len, hidden, embedding_init=embed)
        self.lm_head = Dense(
            c.read, use_bias=False, dtype=c.dtype, kernel_init=lecun_truncated_normal
        )
        zeros, low = nn.initializers.zeros, nn.initializers.constant(-5.0)
        self.q_head = Dense(2, kernel_init=zeros, bias_init=low)
        block = _block(c)
        self.L_level = ReasoningModule(c.L_layers, block)
        if c.H_depth:
            self.H_level = ReasoningModule(c.H_depth, block)
        draw = truncated_normal(1.0)
        for name in ("H_init", "L_init"):
            self.variable("constants", name, lambda: draw(self.make_rng("params"), (hidden,)))
        if c.puzzle_emb_ndim:
            shape = (c.num_puzzle_identifiers, c.puzzle_emb_ndim)
            self.variable("tables", "puzzle_emb", jnp.zeros, shape, jnp.float32)

    def update_L(self, z_H: Array, z_L: Array, x: Array) -> Array:
        """z_L ← L(z_L, z_H + x̃); all are [B, P+S, D]."""
        return self.L_level(z_L, z_H + x)

    def update_H(self, z_H: Array, z_L: Array) -> Array:
        """z_H ← H(z_H, z_L), or L(z_H, z_L) where there is no H."""
        level = self.H_level if self.config.H_depth else self.L_level
        return level(z_H, z_L)

    def embed(
        self, inputs: Int[Array, "B S"], puzzle_rows: Float[Array, "B E"] | None
    ) -> Float[Array, "B T D"]:
        """x̃: puzzle prefix and tokens, with learned positions if any, times √D; or of each node
        what it knows of its cell's token, and the puzzle."""
        c = self.config
        if c.mixing == "units":
            others = c.vocab_size - c.values
            known = inputs[..., None]
            if c.values:
                own = known == others + jnp.arange(c.values)
                known = jnp.where(known < others, known, jnp.where(own, others, others + 1))
            nodes = known.reshape(len(inputs), -1)
            x = jax.nn.one_hot(nodes, c.known) @ self.embed_tokens.embedding
            if puzzle_rows is not None:
                missing = c.hidden_size - c.puzzle_emb_ndim
                x = x + jnp.pad(puzzle_rows, ((0, 0), (0, missing)))[:, None]
            return (x * math.sqrt(c.hidden_size)).astype(c.dtype)
        # A product and not a gather, for these small vocabularies: its gradient is no slow scatter.
        x = jax.nn.one_hot(inputs, c.vocab_size) @ self.embed_tokens.embedding
        if puzzle_rows is not None:
            width = c.prefix_len * c.hidden_size
            prefix = jnp.pad(puzzle_rows, ((0, 0), (0, width - c.puzzle_emb_ndim)))
            x = jnp.concatenate([prefix.reshape(-1, c.prefix_len, c.hidden_size), x], axis=1)
        if c.pos_encodings == "learned":
            x = math.sqrt(0.5) * (x + self.embed_pos.embedding[: x.shape[1]])
        return (x * math.sqrt(c.hidden_size)).astype(c.dtype)

    def halting_values(self, z_H: Float[Array, "B T D"]) -> tuple[Array, Array]:
        """q_halt and q_continue [B], float32, from the first position, or from the mean node."""
        seen = z_H.astype(jnp.float32)
        q = self.q_head(seen.mean(1) if self.config.mixing == "units" else seen[:, 0])
        return q[:, 0], q[:, 1]

    def read(self, z_H: Float[Array, "B T D"]) -> tuple[Array, Array, Array]:
        """Token logits [B, S, V], q_halt [B] and q_continue [B], float32."""
        c = self.config
        logits = self.lm_head(z_H[:, c.prefix_len :]).astype(jnp.float32)
        if c.values:  # other tokens take the mean of a cell's nodes, values their own node
            logits = logits.reshape(len(z_H), c.seq_len, c.values, -1)
            logits = jnp.concatenate([logits[..., :-1].mean(2), logits[..., -1]], axis=-1)
        return logits, *self.halting_values(z_H)

    def touch(self, inputs: Int[Array, "B S"], puzzle_rows: Array | None) -> None:
        """Runs every piece once, for initialisation."""
        x = self.embed(inputs, puzzle_rows)
        z_L = self.update_L(x, x, x)
        self.read(self.update_H(x, z_L))


def init(config: RecurrentConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh variables: `params`, `constants` and, with a puzzle embedding, `tables`.

    A `ConfigError` says where they fit into no memory.
    """
    known = "at least 1 to make a model"
    require_fields(config, "model", known, lambda x: x >= 1, "seq_len", "vocab_size")
    require_memory(config.weight_bytes)
    inputs = jnp.zeros((1, config.seq_len), jnp.int32)
    rows = jnp.zeros((1, config.puzzle_emb_ndim)) if config.puzzle_emb_ndim else None
    return dict(RecurrentNetwork(config).init(key, inputs, rows, method="touch"))


def _apply(config: RecurrentConfig, variables: Variables, method: str, *args: Any) -> Any:
    return RecurrentNetwork(config).apply(variables, *args, method=method)


def _cycles(
    config: RecurrentConfig,
    variables: Variables,
    states: tuple[Array, Array],
    x: Float[Array, "B T D"],
    n_H: int,
    n_L: int,
) -> tuple[Array, Array]:
    """n_H times: n_L updates of z_L, then one of z_H (none of z_H where n_H is 0)."""

    def fast(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z_H, z_L = carry
        return z_H, _apply(config, variables, "update_L", z_H, z_L, x)

    def slow(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z_H, z_L = jax.lax.fori_loop(0, n_L, fast, carry)
        return _apply(config, variables, "update_H", z_H, z_L), z_L

    if n_H == 0:
        return jax.lax.fori_loop(0, n_L, fast, states)
    return jax.lax.fori_loop(0, n_H, slow, states)


def think(
    config: RecurrentConfig,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> Thought:
    """One ACT step, without gradient but for the last updates: `config.learnt` of z_L, one of z_H.

    The parameters are differentiated through these updates, the embeddings and the heads.
    """
    c, learnt = config, config.learnt
    frozen = jax.lax.stop_gradient(variables)
    x = _apply(c, variables, "embed", inputs, puzzle_rows)
    still, states = jax.lax.stop_gradient((x, (z_H, z_L)))
    if c.H_cycles > 1:
        states = _cycles(c, frozen, states, still, c.H_cycles - 1, c.L_cycles)
    if c.L_cycles > learnt:
        states = _cycles(c, frozen, states, still, 0, c.L_cycles - learnt)
    z_H, z_L = states
    for _ in range(learnt):
        z_L = _apply(c, variables, "update_L", z_H, z_L, x)
    z_H = _apply(c, variables, "update_H", z_H, z_L)
    logits, q_halt, q_continue = _apply(c, variables, "read", z_H)
    z_H, z_L = jax.lax.stop_gradient((z_H, z_L))
    return Thought(z_H, z_L, logits, q_halt, q_continue)


def next_halting_values(
    config: RecurrentConfig,
    variables: Variables,
    z_H: Float[Array, "B T D"],
    z_L: Float[Array, "B T D"],
    inputs: Int[Array, "B S"],
    puzzle_rows: Float[Array, "B E"] | None,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """q_halt and q_continue after one more step, without any gradient (the "second forward")."""
    variables, puzzle_rows, states = jax.lax.stop_gradient((variables, puzzle_rows, (z_H, z_L)))
    x = _apply(config, variables, "embed", inputs, puzzle_rows)
    z_H, _ = _cycles(config, variables, states, x, config.H_cycles, config.L_cycles)
    return _apply(config, variables, "halting_values", z_H)
