"""Rotary position encoding, and the ways in which it is stretched over longer texts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hrm_jax.fields import require, require_range

Rotary = tuple[Float[Array | np.ndarray, "*R S C"], Float[Array | np.ndarray, "*R S C"]]
"""Cosines and sines of each position, the same for the whole batch or not."""

_LLAMA3 = ("factor", "original_length", "low_freq_factor", "high_freq_factor")
_YARN = ("factor", "original_length", "beta_fast", "beta_slow", "truncate", "attention_factor")
SCALINGS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_length"),
    "llama3": _LLAMA3,
    "yarn": _YARN,
}
"""Fields of `RopeScaling` that each kind has."""


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How wavelengths differ from RoFormer's, as the models of Hugging Face's transformers have it.

    Attributes:
        kind: "none"; "linear" (all are longer by the factor); "dynamic" (nothing within
            `original_length`, to which the model is limited, see `TransformerConfig`); "llama3"
            (long ones are longer by the factor); "yarn" (the same, and queries and keys too).
        factor: By how much.
        original_length: Positions that the model was first trained with.
        low_freq_factor, high_freq_factor: Of llama3: wavelengths of more than `original_length`
            divided by the first are long, of less than it divided by the second are kept.
        beta_fast, beta_slow: Of yarn: pairs of channels that turn more often than the first within
            `original_length` are kept, those that turn less often than the second are long.
        truncate: Of yarn: whether the bounds between are whole channels.
        attention_factor: Of yarn: what cosines and sines are multiplied by; 0 takes
            0.1 ln(factor) + 1.

    References:
        Chen et al. (https://arxiv.org/abs/2306.15595) for "linear"; Grattafiori et al., Llama 3
        (https://arxiv.org/abs/2407.21783); Peng et al., YaRN (https://arxiv.org/abs/2309.00071),
        eq. 17 to 23; `modeling_rope_utils.py` of transformers for all.
    """

    kind: Literal["none", "linear", "dynamic", "llama3", "yarn"] = "none"
    factor: float = 2.0
    original_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 0.0

    def unused(self) -> dict[str, str]:
        names = {field.name for field in dataclasses.fields(self)} - {"kind", *SCALINGS[self.kind]}
        return dict.fromkeys(sorted(names), f"rope_scaling.kind is {self.kind!r}")

    def __post_init__(self) -> None:
        where = "model.rope_scaling"
        require_range(self, where, 1, 1e6, "factor")
        least = 1 if "original_length" in SCALINGS[self.kind] else 0
        require_range(self, where, least, 2**24, "original_length")
        positive = ("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")
        require_range(self, where, 1e-6, 1e6, *positive)
        require_range(self, where, 0, 1e3, "attention_factor")
        for less, more in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            least, most = getattr(self, less), getattr(self, more)
            require(least < most, f"{where}.{more}: expected more than {less} {least}, got {most}")


def rotary_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling = RopeScaling()
) -> tuple[Float[np.ndarray, " F"], float]:
    """Radians per position of each of the F = C / 2 pairs of channels, float32, and a factor of
    cosines and sines. The size C of a head is even; theta is the base of the wavelengths.

    References:
        Su et al., RoFormer, §3.2.2 (https://arxiv.org/abs/2104.09864); `RopeScaling`.
    """
    plain = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)
    plain = plain.astype(np.float32)
    s = scaling
    kept: np.ndarray
    if s.kind in ("none", "dynamic"):
        return plain, 1.0
    stretched = plain / np.float32(s.factor)
    if s.kind == "linear":
        return stretched, 1.0
    if s.kind == "llama3":
        turns = s.original_length * plain / np.float32(2 * math.pi)
        kept = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    else:
        low, high = (_turning(s, beta, head_dim, theta) for beta in (s.beta_fast, s.beta_slow))
        if s.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        places = np.arange(head_dim // 2, dtype=np.float32)
        kept = 1 - (places - low) / (high - low if high != low else 0.001)
    kept = np.clip(kept, 0, 1).astype(np.float32)
    attention = s.attention_factor or 0.1 * math.log(s.factor) + 1
    mixed = (1 - kept) * stretched + kept * plain
    return mixed, attention if s.kind == "yarn" else 1.0


def _turning(scaling: RopeScaling, turns: float, head_dim: int, theta: float) -> float:
    """The pair of channels that turns so often within the original length; YaRN, eq. 17 solved."""
    length = scaling.original_length / (turns * 2 * math.pi)
    return head_dim * math.log(length) / (2 * math.log(theta))


def rotary_at(
    positions: Int[Array | np.ndarray, "*R S"], frequencies: Float[np.ndarray, " F"], scale: float
) -> Rotary:
    """Cosines and sines of positions, float32, each half of the last axis repeated: the "rotate
    half" form."""
    angles = jnp.asarray(positions, jnp.float32)[..., None] * frequencies
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale


def rotary_tables(length: int, head_dim: int, theta: float) -> Rotary:
    """`rotary_at` of the positions 0..length-1, not scaled, made by NumPy in advance."""
    frequencies, _ = rotary_frequencies(head_dim, theta)
    angles = np.outer(np.arange(length, dtype=np.float32), frequencies)
    angles = np.concatenate([angles, angles], axis=-1)
    return np.cos(angles), np.sin(angles)


def apply_rotary(
    x: Float[Array, "B S H C"],
    cos: Float[Array | np.ndarray, "*B S C"],
    sin: Float[Array | np.ndarray, "*B S C"],
) -> Float[Array, "B S H C"]:
    """Turns queries or keys by the angles of their positions (`Rotary`); computed in float32."""
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([-right, left], axis=-1)
    return (x * cos[..., None, :] + turned * sin[..., None, :]).astype(x.dtype)
