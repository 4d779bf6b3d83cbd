"""INFINITO: a decoder with a memory of what it has read before, and Φ of what it thinks.

A text is read segment by segment. Within one a position sees the positions before it; of earlier
segments it sees the memory alone, which is written when a segment is over. Nothing of a later token
thus reaches an earlier position.

Reference: INFINITO training guide (the memory's slots, its gate at sigmoid(-5), priorities, the
adaptive threshold, and the components of Φ); its faults are mended, see `docs/infinito.md`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.fields import require, require_fields
from hrm_jax.layers import integration
from hrm_jax.layers.dense import Dense
from hrm_jax.layers.norm import norm
from hrm_jax.models.phi_nets import causal_attention, relative_entropy
from hrm_jax.models.transformer import Cache, Transformer

MEMORY, SEEN, HEADS = "memory", "seen", "heads"
"""Collections: the memory that is read; what is sown: the states that may be written, and queries
and keys of each layer."""


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """A memory of S slots, each with a state and its priority.

    Attributes:
        slots: S; 0 for no memory.
        shared: Whether all rows of a batch have one memory, which goes on from text to text, or
            each its own, which is cleared where a text begins.
        parts: Parts of a segment, whose mean states are written to a slot each.
        layer: Behind which layer it is read, and the states are taken that are written; 0 is the
            last.
        top_k: Slots that a position attends to.
        priority_weight: Share of the priority in what decides which; the rest is likeness.
        gate: Of what is read, in front of the sigmoid, at the start.
        noise: Deviation of the noise on what is read, in training.
        threshold: Priority that a segment must exceed to be written, at the start: that is its
            squashed Φ, 0 to 1.
        lowest, highest: Bounds of the threshold, which falls by 2% where less than 30% of the slots
            are in use and rises by 1% where more than 90% are.
        decay: By which priorities fall with every segment; a slot below the lowest is free.
    """

    slots: int = 256
    shared: bool = False
    parts: int = 1
    layer: int = 0
    top_k: int = 5
    priority_weight: float = 0.3
    gate: float = -5.0
    noise: float = 0.1
    threshold: float = 0.3
    lowest: float = 0.05
    highest: float = 0.7
    decay: float = 0.98

    def unused(self) -> dict[str, str]:
        why = "memory.slots is 0: there is no memory"
        rest = (x.name for x in dataclasses.fields(self) if x.name != "slots")
        return {} if self.slots else dict.fromkeys(rest, why)

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.memory")
        check("0 or more", lambda x: x >= 0, "slots", "layer", "noise")
        check("at least 1", lambda x: x >= 1, "parts", "top_k")
        check("0..1", lambda x: 0 <= x <= 1, "priority_weight", "decay")
        check("more than 0, less than 1", lambda x: 0 < x < 1, "threshold", "lowest", "highest")
        require(
            self.lowest <= self.threshold <= self.highest,
            f"config.memory.threshold: {self.threshold} is not between lowest and highest",
        )
        require(
            not self.slots or self.top_k <= self.slots,
            f"config.memory.top_k: {self.top_k}, but there are {self.slots} slots",
        )


class Memory(struct.PyTreeNode):
    """What is kept of earlier segments, by row, or in one row for all.

    Attributes:
        states: Mean hidden states of parts of segments, of which keys and values are made when they
            are read. No gradient reaches what wrote them.
        priority: Squashed Φ of their segment when it was written, and decayed since; 0 is free.
        threshold: That a segment's must exceed.
        writes: How many there have been.
    """

    states: Float[Array, "R S D"]
    priority: Float[Array, "R S"]
    threshold: Float[Array, " R"]
    writes: Int[Array, " R"]

    @classmethod
    def empty(cls, config: MemoryConfig, rows: int, size: int) -> Memory:
        rows = 1 if config.shared else rows
        return cls(
            jnp.zeros((rows, config.slots, size)),
            jnp.zeros((rows, config.slots)),
            jnp.full(rows, config.threshold),
            jnp.zeros(rows, jnp.int32),
        )

    @property
    def use(self) -> Float[Array, " R"]:
        """The share of the slots in use."""
        return jnp.mean(self.priority > 0, axis=-1)

    def cleared(self, config: MemoryConfig, rows: Bool[Array, " R"]) -> Memory:
        """As at the start, in some rows."""
        fresh = Memory.empty(config, *self.states.shape[::2])

        def pick(new: Array, old: Array) -> Array:
            return jnp.where(rows.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(pick, fresh, self)

    def others(self) -> Memory:
        """Each row with another row's memory."""
        return jax.tree.map(lambda x: jnp.roll(x, max(1, len(x) // 2), axis=0), self)


def put(memory: Memory, state: Float[Array, "R D"], priority: Float[Array, " R"]) -> Memory:
    """Writes a state to each row's memory, where its priority exceeds the threshold, and either a
    slot is free or the least of the priorities is lower: that one it replaces."""

    def one(states: Array, known: Array, threshold: Array, state: Array, priority: Array) -> Any:
        slot = jnp.argmin(known)  # a free one has 0; the first of them
        wanted = (priority > threshold) & (priority > known[slot])
        states = states.at[slot].set(jnp.where(wanted, state, states[slot]))
        return states, known.at[slot].set(jnp.where(wanted, priority, known[slot])), wanted

    states, known, wanted = jax.vmap(one)(
        memory.states,
        memory.priority,
        memory.threshold,
        jax.lax.stop_gradient(state),
        jax.lax.stop_gradient(priority),
    )
    return memory.replace(states=states, priority=known, writes=memory.writes + wanted)


def write(
    config: MemoryConfig, memory: Memory, states: Float[Array, "B T D"], phi: Float[Array, " B"]
) -> Memory:
    """The memory after a segment with these states and Φ (in nats): older ones have decayed, the
    segment's parts are written, and the threshold has been adapted."""
    rows, length, size = states.shape
    kept = memory.priority * config.decay
    memory = memory.replace(priority=jnp.where(kept < config.lowest, 0.0, kept))
    usable = length - length % config.parts
    parts = states[:, length - usable :].reshape(rows, config.parts, -1, size).mean(axis=2)
    priority = jnp.broadcast_to(integration.squashed(phi)[:, None], parts.shape[:2])
    if config.shared:  # row after row
        parts, priority = parts.reshape(1, -1, size), priority.reshape(1, -1)

    def step(memory: Memory, part: Any) -> tuple[Memory, None]:
        return put(memory, *part), None

    memory, _ = jax.lax.scan(
        step, memory, jax.tree.map(lambda x: x.swapaxes(0, 1), (parts, priority))
    )
    use = memory.use
    change = jnp.where(use < 0.3, -0.02, jnp.where(use > 0.9, 0.01, 0.0))
    threshold = jnp.clip(memory.threshold * jnp.exp(change), config.lowest, config.highest)
    return memory.replace(threshold=threshold)


class Recall(nn.Module):
    """x + gate(x) · what x recalls: attention over a memory, whose gate each position has."""

    config: MemoryConfig
    train: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], memory: Memory) -> Float[Array, "B T D"]:
        c, size = self.config, x.shape[-1]
        init = nn.initializers.lecun_normal()
        dense = functools.partial(Dense, size, use_bias=False, kernel_init=init, dtype=x.dtype)
        normed = norm("rms", 1e-5, x.dtype, "norm")(x)
        kept = norm("rms", 1e-5, x.dtype, "memory_norm")(memory.states)
        queries, keys, values = (
            dense(name=name)(y)
            for name, y in (("q_proj", normed), ("k_proj", kept), ("v_proj", kept))
        )
        if c.shared:
            keys, values = (jnp.broadcast_to(y, (len(x), *y.shape[1:])) for y in (keys, values))
        likeness = jnp.einsum("btd,bsd->bts", queries, keys).astype(jnp.float32) / size**0.5
        most = jnp.maximum(memory.priority.max(axis=-1, keepdims=True), 1e-9)
        priority = (memory.priority / most)[:, None, :]
        scores = (1 - c.priority_weight) * likeness + c.priority_weight * priority
        used = memory.priority[:, None, :] > 0
        scores = jnp.where(used, scores, -jnp.inf)
        last = jax.lax.top_k(scores, c.top_k)[0][..., -1:]
        shares = jax.nn.softmax(scores, axis=-1, where=(scores >= last) & used)
        read = jnp.einsum("bts,bsd->btd", jnp.where(used, shares, 0).astype(x.dtype), values)
        if self.train and c.noise:
            there = jnp.any(used, axis=-1, keepdims=True)
            drawn = jax.random.normal(self.make_rng(MEMORY), read.shape, read.dtype)
            read = read + jnp.where(there, c.noise * drawn, 0)
        gate = Dense(
            1,
            dtype=x.dtype,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(c.gate),
            name="gate",
        )(normed)
        return x + nn.sigmoid(gate) * read


class Infinito(Transformer):
    """A `Transformer` with the same parameters, and those of `recall`.

    Where the collection "memory" holds one, as `slots`, it is read; without it, it is the
    Transformer. With "seen" mutable, the states that may be written are sown there, as `states`.
    """

    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)

    def setup(self) -> None:
        super().setup()
        if self.memory.slots:
            self.recall = Recall(self.memory, self.train)

    def _blocks(
        self, x: Float[Array, "B S D"], cache: Cache | None, *rest: Any
    ) -> tuple[Float[Array, "B S D"], Cache | None]:
        updated = []
        behind = self.memory.layer or self.config.num_layers
        held: Any = self.get_variable(MEMORY, "slots")
        for i, layer in enumerate(self.layers):
            x, layer_cache = layer(x, None if cache is None else cache[i], *rest)
            updated.append(layer_cache)
            if i + 1 == behind:
                self.sow(SEEN, "states", x)
                if held is not None and self.memory.slots:
                    x = self.recall(x, held)
        return x, None if cache is None else tuple(updated)


@dataclasses.dataclass(frozen=True)
class PhiConfig:
    """What Φ of a segment is. What is trained is never what is reported, see the meter's fields.

    Attributes:
        kind: "gaussian" is Φ_R of hidden states projected to a few dimensions, in nats;
            "components" the original's four analytic ones, each 0 to 1: likeness of neighbours,
            likeness of quarters, dimensions in use, and entropy of the last layer's attention;
            "nets" its four nets, 0 to 1, which are trained with the adapters (see `phi_nets`).
        dimensions: Of the projections, which are divided into two parts.
        projections: How many fixed ones, whose Φ is averaged.
        seed: Of the projections; those of the meter are others.
        shrinkage: Of correlations, see `integration.joint_covariance`.
    """

    kind: Literal["gaussian", "components", "nets"] = "gaussian"
    dimensions: int = 8
    projections: int = 4
    seed: int = 0
    shrinkage: float = 0.1

    def unused(self) -> dict[str, str]:
        names = ("dimensions", "projections", "seed", "shrinkage")
        return {} if self.kind == "gaussian" else dict.fromkeys(names, f"kind is {self.kind!r}")

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.phi")
        check("2, 4, … 32", lambda x: x in range(2, 33, 2), "dimensions")
        check("at least 1", lambda x: x >= 1, "projections")
        check("0 < x < 1", lambda x: 0 < x < 1, "shrinkage")
        check("0 or more", lambda x: x >= 0, "seed")


_WEIGHTS = (0.3, 0.3, 0.2, 0.2)  # of the original's components


class Components(NamedTuple):
    """The original's parts of Φ, each 0 to 1, [B]."""

    temporal: Float[Array, " B"]
    integration: Float[Array, " B"]
    complexity: Float[Array, " B"]
    diversity: Float[Array, " B"]

    @property
    def phi(self) -> Float[Array, " B"]:
        return sum(w * x for w, x in zip(_WEIGHTS, self, strict=True))  # type: ignore[return-value]


def gaussian_phi(config: PhiConfig, states: Float[Array, "B T D"]) -> Float[Array, " B"]:
    """Φ_R of each row, the mean over projections; differentiable."""
    drawn = integration.projections(
        config.seed, config.projections, states.shape[-1], config.dimensions
    )
    parts = integration.halves(config.dimensions)

    def one(series: Float[Array, "T N"]) -> Float[Array, ""]:
        joint = integration.joint_covariance(series, config.shrinkage)
        return integration.revised(joint, parts)

    series = jnp.einsum("btd,pdn->bptn", states.astype(jnp.float32), drawn)
    return jax.vmap(jax.vmap(one))(series).mean(axis=1)


def components(
    states: Float[Array, "B T D"], queries: Float[Array, "B T H C"], keys: Float[Array, "B T K C"]
) -> Components:
    """Of final hidden states, and queries and keys of the last layer.

    Mended: complexity is the participation ratio over D (the original's sigmoid of a variance is
    always 1), and entropy is divided by the log of how many positions a query sees.
    """
    states = states.astype(jnp.float32)
    size = states.shape[-1]
    temporal = (1 + jnp.mean(_cosine(states[:, :-1], states[:, 1:]), axis=1)) / 2
    quarters = jnp.stack([x.mean(axis=1) for x in jnp.array_split(states, 4, axis=1)], axis=1)
    one, other = jnp.triu_indices(4, 1)
    alike = jnp.abs(_cosine(quarters[:, one], quarters[:, other])).mean(axis=1)
    centred = states - states.mean(axis=1, keepdims=True)
    gram = jnp.einsum("btd,bsd->bts", centred, centred)  # has the covariance's spectrum
    trace = jnp.trace(gram, axis1=1, axis2=2)
    spread = trace**2 / jnp.maximum(jnp.square(gram).sum(axis=(1, 2)), 1e-20)
    entropy = relative_entropy(causal_attention(queries, keys)).mean(axis=(1, 2))
    return Components(temporal, alike, spread / size, entropy)


def _cosine(a: Float[Array, "B T D"], b: Float[Array, "B T D"]) -> Float[Array, "B T"]:
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.maximum(lengths, 1e-9)


def beyond(phi: Array, low: Any, high: Any) -> Array:
    """How far Φ is outside of its band, squared."""
    return jnp.square(jax.nn.relu(low - phi)) + jnp.square(jax.nn.relu(phi - high))
