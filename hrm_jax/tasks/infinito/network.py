"""How INFINITO reads a segment, and writes on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.engine.sampling import Choice, choose
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models import infinito
from hrm_jax.models.infinito import (
    HEADS,
    MEMORY,
    SEEN,
    Infinito,
    Memory,
    MemoryConfig,
    PhiConfig,
    Recall,
)
from hrm_jax.models.phi_nets import PhiNets, causal_attention
from hrm_jax.models.transformer import TransformerConfig, init_cache

PARTS = ("recall", "phi")
"""Of what is trained, beside adapters: what reads the memory, and the nets of Φ."""


class Reading(NamedTuple):
    """What a segment of T tokens makes of the network.

    Attributes:
        logits: Of the token after each.
        hidden: What the head takes; of this Φ is made.
        states: Those that may be written.
        phi: Of each row, nats or (by components or nets) 0 to 1.
    """

    logits: Float[Array, "B T V"]
    hidden: Float[Array, "B T D"]
    states: Float[Array, "B T D"]
    phi: Float[Array, " B"]


@dataclasses.dataclass(frozen=True)
class Network:
    """INFINITO's parts and sizes. What is trained is a tree of adapters (see `layers.lora`) and
    `PARTS`, those there are; the rest is the frozen base."""

    sizes: TransformerConfig
    lora: LoraConfig
    memory: MemoryConfig
    phi: PhiConfig
    length: int

    def init(self, base: Mapping[str, Any], key: PRNGKeyArray) -> dict[str, Any]:
        """Fresh adapters, which change nothing yet, what reads the memory, and nets of Φ; where the
        base has been trained with such parts, its own (`taken`)."""
        lora_key, recall_key = jax.random.split(key)
        trained: dict[str, Any] = lora.init(self.lora, base, lora_key)
        if self.memory.slots:
            x = jnp.zeros((1, 1, self.sizes.hidden_size))
            made = Recall(self.memory).init(recall_key, x, self.empty(1))
            trained["recall"] = made["params"]
        if self.phi.kind == "nets":
            length, heads = self.length, self.sizes.num_heads
            states = jnp.zeros((1, length, self.sizes.hidden_size))
            attention = jnp.zeros((1, heads, length, length))
            made = PhiNets().init(jax.random.fold_in(key, 2), states, attention)
            trained["phi"] = made["params"]
        for name in self.taken(base):
            trained[name] = jax.tree.map(jnp.asarray, base[name])
        return trained

    def taken(self, base: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of `PARTS` that a run takes over from its base."""
        wanted = {"recall": self.memory.slots > 0, "phi": self.phi.kind == "nets"}
        return tuple(x for x in PARTS if x in base and wanted[x])

    def variables(
        self, base: Mapping[str, Any], trained: Mapping[str, Any], train: bool = False
    ) -> dict[str, Any]:
        """What `Infinito` takes; differentiable."""
        adapters = {name: trained[name] for name in ("lora", "params")}
        found = lora.variables(self.lora, base, adapters, train)
        found["params"] = {**found["params"], **{k: trained[k] for k in PARTS if k in trained}}
        return found

    def empty(self, rows: int) -> Memory:
        return Memory.empty(self.memory, rows, self.sizes.hidden_size)

    def read(
        self,
        variables: Mapping[str, Any],
        tokens: Int[Array, "B T"],
        memory: Memory | None,
        key: PRNGKeyArray | None = None,
    ) -> Reading:
        """Reads a segment; without a memory, by the decoder alone. With a key, as in training."""
        train = key is not None
        rngs = {}
        if key is not None:
            names = ("dropout", "lora", MEMORY)
            rngs = dict(zip(names, jax.random.split(key, 3), strict=True))
        given = {**variables, **({} if memory is None else {MEMORY: {"slots": memory}})}
        module = Infinito(self.sizes, train, memory=self.memory)
        (hidden, _), sown = module.apply(
            given, tokens, method="hidden", mutable=[SEEN, HEADS], rngs=rngs
        )
        logits: Any = module.apply(given, hidden, method="logits")
        if self.phi.kind == "gaussian":
            phi = infinito.gaussian_phi(self.phi, hidden)
        else:
            last: Any = sown[HEADS][f"layers_{self.sizes.num_layers - 1}"]["attention"]
            queries, keys = last["queries_and_keys"][0]
            if self.phi.kind == "components":
                phi = infinito.components(hidden, queries, keys).phi
            else:
                nets = PhiNets(train).bind({"params": variables["params"]["phi"]}, rngs=rngs)
                phi = nets(hidden, causal_attention(queries, keys))
        return Reading(logits, hidden, sown[SEEN]["states"][0], phi)

    def study(
        self,
        base: Mapping[str, Any],
        trained: Mapping[str, Any],
        tokens: Int[Array, "B T1"],
        memory: Memory,
        key: PRNGKeyArray | None,
    ) -> tuple[Reading, Float[Array, "B T"]]:
        """Reads all but the last of the tokens, differentiably in what is trained, with a key as in
        training; and the cross entropy of all but the first."""
        given = self.variables(base, trained, train=key is not None)
        found = self.read(given, tokens[:, :-1], memory, key)
        return found, nats(found.logits, tokens[:, 1:])

    def remember(self, memory: Memory, reading: Reading) -> Memory:
        """The memory after a segment."""
        if not self.memory.slots:
            return memory
        return infinito.write(self.memory, memory, reading.states, reading.phi)

    @functools.cached_property
    def _absorb(self) -> Any:
        def absorb(variables: Any, tokens: Array, memory: Memory) -> tuple[Memory, Array, Array]:
            found = self.read(variables, tokens[:, :-1], memory)
            losses = nats(found.logits, tokens[:, 1:])
            return self.remember(memory, found), found.phi, losses.mean(axis=1)

        return jit(absorb)

    @functools.cached_property
    def _go_on(self) -> Any:
        def go_on(
            variables: Any,
            tokens: Int[Array, "B T"],
            have: Int[Array, ""],
            memory: Memory,
            seen: Array,
            suppressed: Array,
            choice: Choice,
            place: Int[Array, ""],
        ) -> tuple[Array, Array]:
            """Fills up a segment of which there are so many tokens, and the one after it."""
            rows, length = tokens.shape
            module = Infinito(self.sizes, memory=self.memory)
            given = {**variables, MEMORY: {"slots": memory}}

            def apply(tokens: Array, cache: Any, start: Array) -> Any:
                return module.apply(given, tokens, cache=cache, start=start, method="hidden")

            def pick(x: Array, seen: Array, at: Array) -> tuple[Array, Array]:
                logits: Any = module.apply(given, x, method="logits")
                token = choose(logits, seen, suppressed, choice, jnp.full(rows, place + at))
                return token, seen.at[jnp.arange(rows), token].set(True)

            cache = init_cache(self.sizes, rows, length)
            x, cache = apply(tokens, cache, jnp.zeros(rows, jnp.int32))
            token, seen = pick(x[:, have - 1], seen, have)
            room = jnp.concatenate([tokens, jnp.zeros((rows, 1), jnp.int32)], axis=1)
            room = room.at[:, have].set(token)

            def step(carry: Any) -> Any:
                have, room, token, seen, cache = carry
                x, cache = apply(token[:, None], cache, jnp.full(rows, have))
                token, seen = pick(x[:, 0], seen, have + 1)
                return have + 1, room.at[:, have + 1].set(token), token, seen, cache

            _, room, _, seen, _ = jax.lax.while_loop(
                lambda carry: carry[0] < length, step, (have, room, token, seen, cache)
            )
            return room, seen

        return jit(go_on)

    def write(
        self,
        variables: Mapping[str, Any],
        tokens: npt.NDArray[np.int32],
        count: int,
        choice: Choice,
        suppressed: tuple[int, ...] = (),
        memory: Memory | None = None,
        ends: tuple[int, ...] = (),
    ) -> tuple[npt.NDArray[np.int32], list[dict[str, float]]]:
        """Continues texts of equal length [B, N] by so many tokens, segment by segment, the memory
        written after each, or until all have had one of `ends`; also figures of each segment that
        was full before, means over the rows."""
        rows, length = len(tokens), self.length
        memory = self.empty(rows) if memory is None else memory
        never = np.zeros(self.sizes.vocab_size, bool)
        never[list(suppressed)] = True
        seen = np.zeros((rows, self.sizes.vocab_size), bool)
        seen[np.arange(rows)[:, None], tokens] = True
        told: list[dict[str, float]] = []
        given, start = tokens.shape[1], 0
        wanted = given + count
        while True:
            if np.isin(tokens[:, given:wanted], ends).any(axis=1).all():
                return tokens[:, :wanted], told
            if min(tokens.shape[1], wanted) > start + length:  # the segment is full
                part = tokens[:, start : start + length + 1]
                memory, phi, loss = self._absorb(variables, part, memory)
                start += length
                told.append(
                    {
                        "phi": float(jnp.mean(phi)),
                        "perplexity": float(jnp.exp(jnp.mean(loss))),
                        "memory_use": float(jnp.mean(memory.use)) if self.memory.slots else 0.0,
                    }
                )
            elif tokens.shape[1] >= wanted:
                return tokens[:, :wanted], told
            else:
                part = tokens[:, start:]
                filled = np.zeros((rows, length), np.int32)
                filled[:, : part.shape[1]] = part
                have, place = np.int32(part.shape[1]), np.int32(start)
                room, seen = self._go_on(
                    variables, filled, have, memory, seen, never, choice, place
                )
                tokens = np.concatenate([tokens[:, :start], np.asarray(room)], axis=1)


def nats(logits: Float[Array, "B T V"], targets: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Cross entropy of each target."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def repetition(rows: npt.NDArray[Any], size: int = 4) -> float:
    """The share of groups of so many tokens that a row has had before."""
    repeated = total = 0
    for row in rows:
        groups = [tuple(row[i : i + size].tolist()) for i in range(len(row) - size + 1)]
        repeated += len(groups) - len(set(groups))
        total += len(groups)
    return repeated / max(total, 1)
