"""Φ as four nets that are learnt, an option beside those in closed form.

What they learn is to answer: a net that says what the objective asks for is as good to it as states
that are integrated. That is what the meter is for.

Reference: INFINITO's four nets by their sizes (1,596,168 parameters at D = 768 and 12 heads). Two
things are mended: its batch normalisation, by which a text's Φ depended on the other texts, is
layer normalisation, of as many parameters; and a head's attention was told by its mean, which is
1/T whatever it attends to: it is told by its relative entropy.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import linen as nn
from jaxtyping import Array, Float

from hrm_jax.layers.dense import Dense
from hrm_jax.layers.norm import norm

_DROPOUT = 0.1
_POOLED = 8  # a head's attention is averaged to so many rows and columns


class PhiNets(nn.Module):
    """Φ of rows, 0 to 1: of each net a score, and their mean by weights that are learnt."""

    train: bool = False

    def setup(self) -> None:
        self.temporal, self.integration = Temporal(self.train), Integration(self.train)
        self.complexity, self.diversity = Complexity(self.train), Diversity(self.train)
        self.weights = self.param("weights", nn.initializers.ones, (4,))

    def __call__(
        self, states: Float[Array, "B T D"], attention: Float[Array, "B H T T"]
    ) -> Float[Array, " B"]:
        scores = self.scores(states, attention)
        return jnp.stack(scores, axis=-1) @ jax.nn.softmax(self.weights)

    def scores(
        self, states: Float[Array, "B T D"], attention: Float[Array, "B H T T"]
    ) -> tuple[Float[Array, " B"], ...]:
        """Temporal, integration, complexity, diversity."""
        states = states.astype(jnp.float32)
        return (
            self.temporal(states),
            self.integration(states, relative_entropy(attention).mean(axis=-1)),
            self.complexity(states),
            self.diversity(attention),
        )


class _Net(nn.Module):
    train: bool = False

    def _drop(self, x: Array) -> Array:
        return nn.Dropout(_DROPOUT, deterministic=not self.train)(x)

    def _through(self, x: Array, *sizes: int) -> Array:
        """Layers with ReLU and dropout."""
        for size in sizes:
            x = self._drop(nn.relu(Dense(size)(x)))
        return x

    def _score(self, x: Array) -> Array:
        return nn.sigmoid(Dense(1)(x)[..., 0])


_layer_norm = functools.partial(norm, "layer", 1e-5, jnp.float32, None)


class Temporal(_Net):
    """How a state goes with the next: the mean over pairs."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, " B"]:
        x = self._through(jnp.concatenate([x[:, :-1], x[:, 1:]], axis=-1), 128)
        for _ in range(3):
            x = x + self._drop(nn.relu(_layer_norm()(Dense(128)(x))))
        return self._score(x).mean(axis=-1)


class Integration(_Net):
    """A Transformer layer over all states, and the heads' entropies."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], entropies: Float[Array, "B H"]
    ) -> Float[Array, " B"]:
        x = Dense(256)(x)
        attend = nn.MultiHeadDotProductAttention(
            4, dropout_rate=_DROPOUT, deterministic=not self.train
        )
        x = _layer_norm()(x + self._drop(attend(x)))
        x = _layer_norm()(x + self._drop(Dense(256)(self._through(x, 512))))
        told = Dense(64)(self._through(entropies, 64))
        x = jnp.concatenate([x.mean(axis=1), told], axis=-1)
        x = self._drop(nn.relu(_layer_norm()(Dense(256)(x))))
        return self._score(self._through(x, 128))


class Complexity(_Net):
    """Convolutions over 3, 5 and 7 states."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, " B"]:
        x = Dense(128)(x)
        found = [nn.relu(_layer_norm()(nn.Conv(128, (size,))(x))) for size in (3, 5, 7)]
        x = jnp.concatenate([y.mean(axis=1) for y in found], axis=-1)
        return self._score(self._through(nn.relu(Dense(128)(x)), 64))


class Diversity(_Net):
    """The last layer's attention, averaged to 8 × 8, which each head has a layer of its own for."""

    @nn.compact
    def __call__(self, attention: Float[Array, "B H T T"]) -> Float[Array, " B"]:
        pool = _pooling(attention.shape[-1])
        x = jnp.einsum("pt,bhts,qs->bhpq", pool, attention, pool)
        heads = nn.vmap(
            Dense, in_axes=1, out_axes=1, variable_axes={"params": 0}, split_rngs={"params": True}
        )
        x = nn.relu(heads(64)(x.reshape(*x.shape[:2], -1)))
        x = self._drop(nn.relu(_layer_norm()(Dense(64)(x.reshape(len(x), -1)))))
        return self._score(nn.relu(Dense(32)(x)))


def causal_attention(
    queries: Float[Array, "B T H C"], keys: Float[Array, "B T K C"]
) -> Float[Array, "B H T T"]:
    """Shares that each position gives to those before it and itself, of each head."""
    keys = jnp.repeat(keys, queries.shape[2] // keys.shape[2], axis=2)
    scores = jnp.einsum("bthc,bshc->bhts", queries, keys).astype(jnp.float32)
    seen = jnp.tril(jnp.ones((queries.shape[1],) * 2, bool))
    return jax.nn.softmax(scores / queries.shape[-1] ** 0.5, axis=-1, where=seen)


def relative_entropy(attention: Float[Array, "B H T T"]) -> Float[Array, "B H T1"]:
    """Entropy of each position's shares, but the first's, over that of equal ones: 0 to 1."""
    told = -jnp.sum(attention * jnp.log(jnp.maximum(attention, 1e-20)), axis=-1)
    return told[..., 1:] / jnp.log(jnp.arange(2, attention.shape[-1] + 1))


def _pooling(length: int) -> npt.NDArray[np.float32]:
    """[8, T], which averages parts; they overlap by one where 8 does not divide T."""
    starts = np.arange(_POOLED) * length // _POOLED
    ends = -(-np.arange(1, _POOLED + 1) * length // _POOLED)
    at = np.arange(length)
    inside = (at >= starts[:, None]) & (at < ends[:, None])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
