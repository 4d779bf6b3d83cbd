"""Which token comes next: how a request asks for it, and the choice itself, on the device."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt32

MAX_ALTERNATIVES = 20

_NEVER = -1e30  # finite, because programs may be compiled for finite numbers only
_GREEDY_BELOW = 1e-5


@no_type_check  # it checks itself
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a request wants its tokens chosen, and when it ends; `ValueError` names the field that is
    out of range, and what was expected.

    References:
        Holtzman et al. (https://arxiv.org/abs/1904.09751) for top-p; Nguyen et al.
        (https://arxiv.org/abs/2407.01082) for min-p; Keskar et al., CTRL
        (https://arxiv.org/abs/1909.05858), §4.1, for the penalty.
    """

    max_new_tokens: int = 100  # at most; fewer where the model's length ends
    temperature: float = 1.0  # divides the logits; 0 takes the likeliest token
    top_k: int = 0  # only the k likeliest; 0 all
    top_p: float = 1.0  # only the fewest likeliest whose probabilities add up to at least p
    min_p: float = 0.0  # only those at least this fraction as likely as the likeliest
    # Divides the positive logits, and multiplies the negative ones, of tokens seen or made already.
    repetition_penalty: float = 1.0
    seed: int = 0  # the same seed gives the same tokens
    stop: tuple[str, ...] = ()  # texts that end the answer; they are no part of it
    stop_tokens: tuple[int, ...] = ()  # that end the answer, besides the tokenizer's
    logprobs: int = 0  # alternatives reported for each token, with their log-probabilities; -1 none
    ignore_eos: bool = False  # whether the tokenizer's end tokens are as any other

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "top_k", "seed", "logprobs"):
            self._check(name, "a whole number", _is_whole(getattr(self, name)))
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            self._check(name, "a finite number", _is_finite(getattr(self, name)))
        self._check("max_new_tokens", "at least 1", self.max_new_tokens >= 1)
        self._check("temperature", "at least 0", self.temperature >= 0)
        self._check("top_k", "at least 0", self.top_k >= 0)
        self._check("top_p", "0 <= x <= 1", 0 <= self.top_p <= 1)
        self._check("min_p", "0 <= x <= 1", 0 <= self.min_p <= 1)
        self._check("repetition_penalty", "more than 0", self.repetition_penalty > 0)
        most = MAX_ALTERNATIVES
        self._check("logprobs", f"-1 <= x <= {most}", -1 <= self.logprobs <= most)
        stops = isinstance(self.stop, tuple | list)
        stops = stops and all(isinstance(x, str) and x for x in self.stop)
        self._check("stop", "texts that are not empty", stops)
        tokens = isinstance(self.stop_tokens, tuple | list)
        self._check(
            "stop_tokens", "whole numbers", tokens and all(map(_is_whole, self.stop_tokens))
        )

    def _check(self, name: str, expected: str, fine: bool) -> None:
        if not fine:
            raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float | np.floating) and math.isfinite(value))


class Choice(struct.PyTreeNode):
    """What `choose` needs to know of each row: fields of `Sampling`."""

    temperature: Float[Array, " *B"]
    top_k: Int[Array, " *B"]
    top_p: Float[Array, " *B"]
    min_p: Float[Array, " *B"]
    repetition_penalty: Float[Array, " *B"]
    seed: UInt32[Array, "*B 2"]

    @classmethod
    def of(cls, sampling: Sampling) -> Choice:
        """One request's choice as numpy arrays without the first axis."""
        seed = sampling.seed % 2**64
        greedy = sampling.temperature < _GREEDY_BELOW
        values: dict[str, Any] = {
            "temperature": np.float32(0 if greedy else sampling.temperature),
            "top_k": np.int32(min(sampling.top_k, 2**31 - 1)),
            "top_p": np.float32(sampling.top_p),
            "min_p": np.float32(sampling.min_p),
            "repetition_penalty": np.float32(sampling.repetition_penalty),
            "seed": np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32),
        }
        return cls(**values)

    @classmethod
    def empty(cls, rows: int) -> Choice:
        one = cls.of(Sampling(temperature=0))
        return jax.tree.map(lambda x: jnp.asarray(np.broadcast_to(x, (rows, *np.shape(x)))), one)


def penalised(
    logits: Float[Array, "B V"], seen: Bool[Array, "B V"], penalty: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Makes tokens that were seen less likely (CTRL, §4.1, with the sign taken care of)."""
    by = penalty[:, None]
    return jnp.where(seen, jnp.where(logits > 0, logits / by, logits * by), logits)


def kept(
    logits: Float[Array, "B V"],
    top_k: Int[Array, " B"],
    top_p: Float[Array, " B"],
    min_p: Float[Array, " B"],
) -> Bool[Array, "B V"]:
    """Tokens that top-k, then top-p among those, then min-p leave over; at least one.

    Tokens as likely as the last one kept are kept too. `logits` are those after the temperature;
    top-k 0, top-p 1 and min-p 0 keep all.
    """
    vocabulary = logits.shape[-1]
    falling = -jnp.sort(-logits, axis=-1)
    k = jnp.where(top_k > 0, jnp.minimum(top_k, vocabulary), vocabulary)
    least = jnp.take_along_axis(falling, k[:, None] - 1, axis=-1)
    weights = jnp.where(falling >= least, jnp.exp(falling - falling[:, :1]), 0.0)
    # What the more likely ones have together; a token is needed while that is less than p.
    before = jnp.cumsum(weights, axis=-1) - weights
    needed = before < top_p[:, None] * jnp.sum(weights, axis=-1, keepdims=True)
    last = jnp.maximum(jnp.sum(needed, axis=-1, keepdims=True), 1) - 1
    nucleus = jnp.take_along_axis(falling, last, axis=-1)
    least = jnp.where(top_p[:, None] < 1, jnp.maximum(least, nucleus), least)
    fraction = jnp.log(jnp.maximum(min_p, 1e-30))[:, None]
    least = jnp.where(min_p[:, None] > 0, jnp.maximum(least, falling[:, :1] + fraction), least)
    return logits >= least


def choose(
    logits: Float[Array, "B V"],
    seen: Bool[Array, "B V"],
    suppressed: Bool[Array, " V"],
    choice: Choice,
    position: Int[Array, " B"],
) -> Int[Array, " B"]:
    """Chooses a token for each row: penalty, suppression, temperature, top-k, top-p, min-p, draw.

    A draw depends on the row's seed and `position` (of the token that is chosen) alone, never on
    other rows. `seen` are tokens in the prompt or made already.
    """
    logits = penalised(logits, seen, choice.repetition_penalty)
    logits = jnp.where(suppressed, _NEVER, logits)
    drawing = choice.temperature > 0
    cutting = (choice.top_k > 0) | (choice.top_p < 1) | (choice.min_p > 0)

    def draw() -> Int[Array, " B"]:
        warmth = jnp.where(drawing, choice.temperature, 1.0)[:, None]
        tempered = jnp.where(suppressed, _NEVER, logits / warmth)
        keep = jax.lax.cond(
            jnp.any(drawing & cutting),
            lambda: kept(tempered, choice.top_k, choice.top_p, choice.min_p),
            lambda: jnp.ones_like(seen),
        )
        noise = jax.vmap(_gumbel, in_axes=(0, 0, None))(choice.seed, position, logits.shape[-1])
        drawn = jnp.argmax(jnp.where(keep & ~suppressed, tempered + noise, _NEVER), axis=-1)
        return jnp.where(drawing, drawn, likeliest).astype(jnp.int32)

    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.lax.cond(jnp.any(drawing), draw, lambda: likeliest)


def _gumbel(seed: UInt32[Array, 2], position: Int[Array, ""], size: int) -> Float[Array, " V"]:
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    return jax.random.gumbel(jax.random.fold_in(key, position), (size,))
