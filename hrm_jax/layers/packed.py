"""Kernels of linear layers in 8 or 4 bits, for bases that are not trained.

A packed kernel stands in the parameters in the place of the array, and `Dense` unpacks it where it
is used, again in the backward pass. Where layers are scanned, one layer's are whole at a time.

References:
    Dettmers et al., LLM.int8() (https://arxiv.org/abs/2208.07339), eq. 2, for a scale per column;
    QLoRA (https://arxiv.org/abs/2305.14314), §3 and appendix E, for NF4 (here without the second
    quantisation, that of the scales).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import struct, traverse_util
from jaxtyping import Array, Float, Int8, UInt8

BLOCK = 64
"""Weights that share a scale in NF4: neighbours among a column's."""

NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
"""The 16 values, quantiles of a normal distribution (QLoRA, appendix E)."""


class Int8Kernel(struct.PyTreeNode):
    """Whole numbers in [-127, 127], and what 1 stands for in each column."""

    codes: Int8[Array, "*N D O"]
    scale: Float[Array, "*N O"]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def unpack(self, dtype: Any = jnp.float32) -> Float[Array, "*N D O"]:
        return (self.codes * self.scale[..., None, :]).astype(dtype)


class NF4Kernel(struct.PyTreeNode):
    """Two codes of `NF4` in a byte, the earlier row in its upper half, and the largest magnitude
    of each block; rows are filled up to whole blocks."""

    codes: UInt8[Array, "*N H O"]
    largest: Float[Array, "*N K O"]
    rows: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        *scanned, _, size = self.codes.shape
        return (*scanned, self.rows, size)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def unpack(self, dtype: Any = jnp.float32) -> Float[Array, "*N D O"]:
        *scanned, half, size = self.codes.shape
        pairs = jnp.stack([self.codes >> 4, self.codes & 15], axis=-2)
        values = jnp.asarray(NF4)[pairs.reshape(*scanned, -1, BLOCK, size)]
        values = (values * self.largest[..., None, :]).reshape(*scanned, 2 * half, size)
        return values[..., : self.rows, :].astype(dtype)


Packed = Int8Kernel | NF4Kernel


def pack(kernel: Float[Array, "*N D O"], kind: Literal["int8", "nf4"]) -> Packed:
    """A kernel rounded to the nearest values that there are."""
    kernel = jnp.asarray(kernel, jnp.float32)
    if kind == "int8":
        scale = jnp.max(jnp.abs(kernel), axis=-2) / 127
        codes = jnp.round(kernel / jnp.where(scale == 0, 1, scale)[..., None, :])
        return Int8Kernel(codes.astype(jnp.int8), scale)
    *scanned, rows, size = kernel.shape
    filled = [(0, 0)] * len(scanned) + [(0, -rows % BLOCK), (0, 0)]
    blocks = jnp.pad(kernel, filled).reshape(*scanned, -1, BLOCK, size)
    largest = jnp.max(jnp.abs(blocks), axis=-2)
    scaled = blocks / jnp.where(largest == 0, 1, largest)[..., None, :]
    codes = jnp.searchsorted(jnp.asarray((NF4[1:] + NF4[:-1]) / 2), scaled).astype(jnp.uint8)
    pairs = codes.reshape(*scanned, -1, 2, size)
    return NF4Kernel(pairs[..., 0, :] << 4 | pairs[..., 1, :], largest, rows)


def quantize(
    params: Mapping[str, Any], kind: Literal["int8", "nf4"], rest: Any = None
) -> dict[str, Any]:
    """The parameters with all kernels of linear layers packed, but for the head's; the others in
    the dtype `rest`, or as they are."""
    packed = {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        if path[-1] == "kernel" and leaf.ndim >= 2 and path[-2] != "lm_head":
            packed[path] = pack(leaf, kind)
        else:
            packed[path] = leaf if rest is None else leaf.astype(rest)
    return dict(traverse_util.unflatten_dict(packed))
