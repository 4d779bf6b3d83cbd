"""Losses and per-row figures of puzzle models."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

IGNORED = -100  # label of a token that does not count

LossName = Literal["stablemax", "softmax"]


def stablemax_log_probabilities(logits: Float[Array, "... V"]) -> Float[Array, "... V"]:
    """log(s(x) / Σ s(x)) with s(x) = x + 1 where x ≥ 0, else 1 / (1 − x).

    Neither branch is evaluated outside its range, so that no gradient is infinite. From Prieto et
    al., Grokking at the Edge of Numerical Stability (https://arxiv.org/abs/2501.04697), §4.
    """
    positive = logits >= 0
    up = jnp.log1p(jnp.where(positive, logits, 0.0))
    down = -jnp.log1p(jnp.where(positive, 0.0, -logits))
    log_s = jnp.where(positive, up, down)
    total = jnp.sum(jnp.exp(log_s), axis=-1, keepdims=True)
    return log_s - jnp.log(total)


def token_cross_entropy(
    logits: Float[Array, "... S V"], labels: Int[Array, "... S"], name: LossName
) -> Float[Array, "... S"]:
    """−log p(label), in nats and float32; 0 where the label is `IGNORED`."""
    logits = logits.astype(jnp.float32)
    log_p = jax.nn.log_softmax(logits) if name == "softmax" else stablemax_log_probabilities(logits)
    counted = labels != IGNORED
    # A comparison and not a gather: the gradient of a gather is a slow scatter.
    chosen = labels[..., None] == jnp.arange(logits.shape[-1])
    return jnp.where(counted, -jnp.sum(jnp.where(chosen, log_p, 0.0), axis=-1), 0.0)


def binary_cross_entropy(
    logits: Float[Array, ...], targets: Float[Array, ...]
) -> Float[Array, ...]:
    """−t·log σ(x) − (1 − t)·log(1 − σ(x)), in nats."""
    return jax.nn.softplus(logits) - logits * targets


def correctness(
    predictions: Int[Array, "B S"], labels: Int[Array, "B S"]
) -> tuple[Float[Array, " B"], Bool[Array, " B"], Int[Array, " B"]]:
    """Share of labelled tokens that are right, whether all are, and how many are labelled.

    A row without labelled tokens counts as all right, as in the reference.
    """
    counted = labels != IGNORED
    right = jnp.sum(counted & (predictions == labels), axis=-1)
    labelled = jnp.sum(counted, axis=-1)
    return right / jnp.maximum(labelled, 1), right == labelled, labelled
