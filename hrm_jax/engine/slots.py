"""The device's side of the engine: rows of a batch, their cache, and the programs that move them.

A `Rows` has a fixed number of rows R and room for W positions; each program is compiled once for
each such shape. A prompt is read in chunks into a cache of one row of its own (`prefill`), which
then becomes a row of the batch (`join`); `decode` takes several steps of all rows at once; `fit`
moves rows to a larger or smaller batch.

A step may guess tokens ahead, as they came before in the same text, and feed them too: as long as
the model chooses what was guessed, each is one more token of the same step. What is chosen is the
same, for a draw depends on its position and not on the step.

References:
    Leviathan et al., Fast inference from Transformers via speculative decoding
    (https://arxiv.org/abs/2211.17192); Saxena, Prompt lookup decoding (2023), for guesses without a
    model.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.tree_util import DictKey
from jaxtyping import Array, Bool, Float, Int

from hrm_jax.engine.division import Division
from hrm_jax.engine.sampling import MAX_ALTERNATIVES, Choice, choose
from hrm_jax.layers.dense import LORA
from hrm_jax.layers.lora import LoraConfig, stack
from hrm_jax.models.transformer import Cache, Transformer, TransformerConfig

MAX_STEPS = 8
"""Most steps of one call of `decode`."""

_LOOKED_UP = 3  # last tokens that are sought in the text before


class Rows(struct.PyTreeNode):
    """State of the batch; a row that has nothing left is free."""

    cache: Cache
    token: Int[Array, " B"]  # that is fed next
    position: Int[Array, " B"]  # of `token`
    adapter: Int[Array, " B"]  # 0 for none
    left: Int[Array, " B"]  # how many new tokens the row may still make
    added: Float[Array, "B D"]  # to the embedding of `token`
    seen: Bool[Array, "B V"]  # tokens fed or made so far
    history: Int[Array, "B L"]  # the same by position, up to `token`; L is 0 where none is guessed
    stops: Bool[Array, "B V"]  # tokens that end the row
    choice: Choice


class Made(struct.PyTreeNode):
    """What `decode` has made, MAX_STEPS (1 + guesses) (M) tokens of each row at most;
    log-probabilities are under the model, before penalty, temperature and cuts."""

    token: Int[Array, "M B"]  # -1 behind those that a row made
    logprob: Float[Array, "M B"]
    top: Int[Array, "M B A"]  # the likeliest tokens, where asked for
    top_logprob: Float[Array, "M B A"]
    guessed: Int[Array, " B"]  # how many of them were guessed


class Programs:
    """The compiled programs of one model."""

    def __init__(
        self,
        config: TransformerConfig,
        params: Mapping[str, Any],
        suppressed: tuple[int, ...],
        adapters: Sequence[tuple[LoraConfig, Mapping[str, Any]]] = (),
        devices: int = 1,
    ) -> None:
        self.config = config
        self._division = Division(config, devices)
        self.compiled: dict[str, int] = {}  # how often each program was, by name and shape
        self._model = Transformer(config)

        # Cast once what layers would cast in each step; norms compute in float32.
        def laid(path: tuple[Any, ...], x: Any, always: bool = False) -> Any:
            cast = always or path[-1] in map(DictKey, ("kernel", "embedding"))
            return self._division.parameter(path, jnp.asarray(x, config.dtype if cast else None))

        mapped = jax.tree_util.tree_map_with_path
        self._variables: dict[str, Any] = {"params": mapped(laid, params)}
        if adapters:
            cast = functools.partial(laid, always=True)
            self._variables[LORA] = mapped(cast, stack(params, adapters))
        never = jnp.asarray(np.isin(np.arange(config.vocab_size), suppressed))
        self._suppressed = self._division.place(never)
        self._ready: dict[str, Any] = {}
        self._compiling = threading.Lock()  # several engines may share the programs

    def _call(
        self, name: str, function: Callable[..., Any], donated: tuple[int, ...], *args: Any
    ) -> Any:
        with self._compiling:
            if name not in self._ready:
                self._ready[name] = self._division.compiled(function, donated, args)
                self.compiled[name] = self.compiled.get(name, 0) + 1
        return self._ready[name](*args)

    def empty_cache(self, count: int, window: int) -> Cache:
        """Room for `window` positions of so many rows."""
        return self._division.empty_cache(count, window)

    def empty_rows(self, count: int, window: int, speculate: int = 0) -> Rows:
        """Free rows, of which `speculate` tokens are to be guessed in a step."""
        c = self.config
        rows = Rows(
            cache=None,
            token=jnp.zeros(count, jnp.int32),
            adapter=jnp.zeros(count, jnp.int32),
            position=jnp.zeros(count, jnp.int32),
            left=jnp.zeros(count, jnp.int32),
            added=jnp.zeros((count, c.hidden_size), jnp.float32),
            seen=jnp.zeros((count, c.vocab_size), bool),
            history=jnp.zeros((count, c.max_length if speculate else 0), jnp.int32),
            stops=jnp.zeros((count, c.vocab_size), bool),
            choice=Choice.empty(count),
        )
        cache = self.empty_cache(count, window)
        return self._division.place(rows).replace(cache=cache)

    def widen(self, cache: Cache, window: int) -> Cache:
        """A cache of one row with more room."""

        def run(wider: Cache, cache: Cache) -> Cache:
            return jax.tree.map(lambda to, x: _put(to, x, 0), wider, cache)

        name = f"widen {window_of(cache)} {window}"
        return self._call(name, run, (0,), self.empty_cache(1, window), cache)

    def prefill(
        self,
        caches: Sequence[Cache],
        tokens: np.ndarray,
        starts: Sequence[int],
        added: np.ndarray,
        adapters: Sequence[int],
    ) -> list[Cache]:
        """Reads chunks of P prompts, int32 [P, S], into their caches of one row each, which have
        the same room and are donated. `starts` are the positions of their first tokens; what fills
        a chunk up does no harm; `added` to the embeddings is float32 [P, S, D]."""

        def run(
            variables: Any, caches: list[Cache], tokens: Any, starts: Any, added: Any, adapters: Any
        ) -> list[Cache]:
            rows = jax.tree.map(lambda *each: jnp.concatenate(each, axis=-4), *caches)
            where = {"cache": rows, "start": starts, "added": added}
            model = self._model.bind(_of_rows(variables, adapters))
            _, rows = model.hidden(tokens, **where)
            return [
                jax.tree.map(lambda x, i=i: x[..., i : i + 1, :, :, :], rows)
                for i in range(len(caches))
            ]

        name = f"prefill {len(caches)} {tokens.shape[1]} {window_of(caches[0])}"
        numbers = np.array(starts, np.int32), added, np.array(adapters, np.int32)
        read: list[Cache] = self._call(
            name, run, (1,), self._variables, list(caches), tokens.astype(np.int32), *numbers
        )
        return read

    def join(
        self,
        rows: Rows,
        row: int,
        cache: Cache,
        tokens: list[int],
        left: int,
        added: np.ndarray,
        stops: list[int],
        choice: Choice,
        adapter: int = 0,
    ) -> Rows:
        """Puts a request into a row of a batch, which is donated. `cache` is what the prompt but
        its last token left; `added` to the last token's embedding is float32 [D]."""
        size = self.config.vocab_size
        history = np.zeros(rows.history.shape[1], np.int32)
        if len(history):
            history[: len(tokens)] = tokens
        one = {
            "token": np.int32(tokens[-1]),
            "position": np.int32(len(tokens) - 1),
            "adapter": np.int32(adapter),
            "left": np.int32(left),
            "added": np.asarray(added, np.float32),
            "seen": np.isin(np.arange(size), tokens),
            "history": history,
            "stops": np.isin(np.arange(size), stops),
            "choice": choice,
        }

        def run(rows: Rows, row: Any, cache: Cache, one: dict[str, Any]) -> Rows:
            held = min(window_of(rows.cache), window_of(cache))
            joined = jax.tree.map(
                lambda old, new: _put(old, new[..., :held, :], row), rows.cache, cache
            )
            old = {name: getattr(rows, name) for name in one}
            fields = jax.tree.map(lambda old, new: old.at[row].set(new), old, one)
            return rows.replace(cache=joined, **fields)

        name = f"join {_named(rows)} {window_of(cache)}"
        return self._call(name, run, (0,), rows, np.int32(row), cache, one)

    def fit(self, rows: Rows, source: list[int], cache: Cache) -> Rows:
        """Moves rows to a batch of another shape: `source` has for each row of the new batch the
        row it was, -1 for a free one. `cache` is room for it, with anything in it, and donated;
        positions for which there is no room are lost."""
        window = window_of(cache)
        name = f"fit {_named(rows)} {len(source)} {window}"

        def run(cache: Cache, rows: Rows, source: Any) -> Rows:
            at = jnp.maximum(source, 0)
            moved = jax.tree.map(lambda x: x[at], rows.replace(cache=None))
            cache = jax.tree.map(lambda to, x: _moved(to, x, at), cache, rows.cache)
            return moved.replace(cache=cache, left=jnp.where(source >= 0, moved.left, 0))

        return self._call(name, run, (0,), cache, rows, np.array(source, np.int32))

    def decode(
        self, rows: Rows, alive: np.ndarray, steps: int, alternatives: bool, speculate: int = 0
    ) -> tuple[Rows, Made]:
        """Takes up to `steps` (at most MAX_STEPS) steps of all rows that have something left;
        `rows` have room for them, and for `speculate` tokens that are guessed in the last one, and
        are donated. Those not `alive`, bool [B], become free; `alternatives` says whether any row
        wants to know the likeliest tokens."""
        name = f"decode {_named(rows)}" + f" {speculate}" * (speculate > 0)
        args = (rows, alive, np.int32(steps), np.bool_(alternatives))
        run = functools.partial(self._decode, speculate)
        return self._call(name, run, (2,), self._variables, self._suppressed, *args)

    def _decode(
        self,
        speculate: int,
        variables: Any,
        suppressed: Any,
        rows: Rows,
        alive: Any,
        steps: Any,
        alternatives: Any,
    ) -> tuple[Rows, Made]:
        variables = _of_rows(variables, rows.adapter)
        count, most = len(alive), min(MAX_ALTERNATIVES, self.config.vocab_size)
        length = MAX_STEPS * (1 + speculate)
        made = Made(
            token=jnp.full((length, count), -1, jnp.int32),
            logprob=jnp.zeros((length, count), jnp.float32),
            top=jnp.zeros((length, count, most), jnp.int32),
            top_logprob=jnp.zeros((length, count, most), jnp.float32),
            guessed=jnp.zeros(count, jnp.int32),
        )

        def going(carry: Any) -> Any:
            step, rows, _ = carry
            return (step < steps) & jnp.any(rows.left > 0)

        def body(carry: Any) -> Any:
            step, rows, made = carry
            rows, made = self._step(variables, suppressed, rows, made, alternatives, speculate)
            return step + 1, rows, made

        rows = rows.replace(left=jnp.where(alive, rows.left, 0))
        _, rows, made = jax.lax.while_loop(going, body, (jnp.int32(0), rows, made))
        return rows, made

    def _step(
        self,
        variables: Any,
        suppressed: Any,
        rows: Rows,
        made: Made,
        alternatives: Any,
        speculate: int,
    ) -> tuple[Rows, Made]:
        guesses = _looked_up(rows.history, rows.position, speculate)
        fed = jnp.concatenate([rows.token[:, None], guesses], axis=1)
        added = jnp.pad(rows.added[:, None], ((0, 0), (0, speculate), (0, 0)))
        where = {"cache": rows.cache, "start": rows.position, "added": added}
        model = self._model.bind(variables)
        hidden, cache = model.hidden(fed, **where)
        logits = self._division.gathered(model.logits(hidden))
        rows = rows.replace(cache=cache, added=jnp.zeros_like(rows.added))
        active = rows.left > 0
        for i in range(1 + speculate):
            rows, made = _take(rows, made, logits[:, i], active, suppressed, alternatives)
            if i < speculate:
                active &= (rows.left > 0) & (rows.token == guesses[:, i])
                made = made.replace(guessed=made.guessed + active)
        return rows, made


def _take(
    rows: Rows,
    made: Made,
    logits: Float[Array, "B V"],
    active: Bool[Array, " B"],
    suppressed: Bool[Array, " V"],
    alternatives: Any,
) -> tuple[Rows, Made]:
    """The token that `active` rows choose, and what becomes of them."""
    token = choose(logits, rows.seen, suppressed, rows.choice, rows.position + 1)
    logprobs = jax.nn.log_softmax(logits)
    each, most = jnp.arange(len(token)), made.top.shape[-1]

    def likeliest() -> tuple[Array, Array]:
        values, ids = jax.lax.top_k(logprobs, most)
        return ids.astype(jnp.int32), values

    def nothing() -> tuple[Array, Array]:
        shape = (len(token), most)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)

    new = (token, logprobs[each, token], *jax.lax.cond(alternatives, likeliest, nothing))
    so_far = jnp.sum(made.token >= 0, axis=0)
    so_far = jnp.where(active, so_far, len(made.token))  # nowhere
    names = ("token", "logprob", "top", "top_logprob")
    written = {
        name: getattr(made, name).at[so_far, each].set(value, mode="drop")
        for name, value in zip(names, new, strict=True)
    }
    left = jnp.where(rows.stops[each, token], 0, rows.left - 1)
    left = jnp.where(active, left, rows.left)
    going = active & (left > 0)  # a row that has ended stays where it is, within the model's length
    position = rows.position + going
    history = rows.history
    if history.shape[1]:
        history = history.at[each, position].set(jnp.where(going, token, history[each, position]))
    rows = rows.replace(
        token=jnp.where(going, token, rows.token),
        position=position,
        left=left,
        seen=rows.seen.at[each, token].max(active),
        history=history,
    )
    return rows, made.replace(**written)


def _looked_up(
    history: Int[Array, "B L"], position: Int[Array, " B"], count: int
) -> Int[Array, "B G"]:
    """Guesses for the `count` (G) tokens behind `position`: those that followed where most of the
    last tokens came before, of several such places the last one that so many follow."""
    if not count:
        return jnp.zeros((len(position), 0), jnp.int32)
    length = history.shape[1]
    places, at = jnp.arange(length), position[:, None]
    alike = places < at
    matched = jnp.zeros(history.shape, jnp.int32)
    for back in range(_LOOKED_UP):
        key = jnp.take_along_axis(history, jnp.maximum(at - back, 0), axis=1)
        alike &= (jnp.roll(history, back, axis=1) == key) & (places >= back)
        matched += alike
    score = (2 * matched + (places <= at - count)) * length + places
    best = jnp.argmax(jnp.where(matched > 0, score, 0), axis=1)
    followed = best[:, None] + 1 + jnp.arange(count)
    return jnp.take_along_axis(history, jnp.minimum(followed, length - 1), axis=1)


def _named(rows: Rows) -> str:
    guessing = " guessing" if rows.history.shape[1] else ""
    return f"{len(rows.left)} {window_of(rows.cache)}{guessing}"


def _of_rows(variables: dict[str, Any], adapter: Int[Array, " B"]) -> dict[str, Any]:
    """Variables in which each row has its adapter, where there are any."""
    if LORA not in variables:
        return variables
    return {**variables, LORA: jax.tree.map(lambda x: x[adapter], variables[LORA])}


def window_of(cache: Cache) -> int:
    """Positions that a cache has room for."""
    length: int = jax.tree.leaves(cache)[0].shape[-2]
    return length


def shape_of(cache: Cache) -> tuple[int, int]:
    """Rows of a cache, and positions that it has room for."""
    shape = jax.tree.leaves(cache)[0].shape
    return shape[-4], shape[-2]


def _put(
    cache: Float[Array, "*N B K L C"], one: Float[Array, "*N _ K W C"], row: Any
) -> Float[Array, "*N B K L C"]:
    at = (0,) * (cache.ndim - 4) + (row, 0, 0, 0)
    return jax.lax.dynamic_update_slice(cache, one, at)


def _moved(
    to: Float[Array, "*N B K L C"], cache: Float[Array, "*N A K W C"], source: Int[Array, " B"]
) -> Float[Array, "*N B K L C"]:
    """Puts rows `source` of a cache into another: whole blocks, not a gather."""
    *layers, _, heads, held, size = cache.shape
    block = (*layers, 1, heads, min(held, window_of(to)), size)

    def move(row: Any, to: Array) -> Array:
        at: list[Any] = [*(0 for _ in layers), source[row], 0, 0, 0]
        return _put(to, jax.lax.dynamic_slice(cache, at, block), row)

    return jax.lax.fori_loop(0, len(source), move, to)
