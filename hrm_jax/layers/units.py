"""A block whose nodes see one another through the units that they belong to.

A node is a cell of a board with one of the values that could stand in it. The weights are shared by
all nodes, so that the network commutes with every symmetry of the units and with every permutation
of the values.

B rows, S cells, N values, G groups, D channels.

References:
    Zaheer et al., Deep Sets (https://arxiv.org/abs/1703.06114), §3;
    Palm et al., Recurrent Relational Networks (https://arxiv.org/abs/1711.08028), §2.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from hrm_jax.fields import require
from hrm_jax.layers.dense import Dense
from hrm_jax.layers.feed_forward import gated_silu
from hrm_jax.layers.initializers import lecun_truncated_normal
from hrm_jax.layers.norm import rms_norm

Kind = tuple[tuple[int, ...], ...]
Units = tuple[Kind, ...]
"""Kinds of units, such as lines and boxes: the groups of each kind, and the cells of each group.

Every cell is in as many groups of a kind as any other (rows and columns are one kind where a
transposed board is as good). Or there is a group for each cell, in their order, of the cells that
it sees, itself among them.
"""


def groups_of_cells(kind: Kind, cells: int) -> npt.NDArray[np.int64]:
    """Which groups of a kind each cell belongs to, int64 [S, c]; ConfigError for no kind."""
    inside = all(group and set(group) <= set(range(cells)) for group in kind)
    if inside and len(kind) == cells and all(i in group for i, group in enumerate(kind)):
        return np.arange(cells)[:, None]
    found = [[g for g, group in enumerate(kind) if cell in group] for cell in range(cells)]
    require(
        inside and bool(found[0]) and len({len(groups) for groups in found}) == 1,
        f"model.units: expected groups of which each of {cells} cells is in as many, or one for "
        f"each cell with itself, got {len(kind)} groups of {sum(map(len, kind))} cells in all",
    )
    return np.array(found)


def _sums(kind: Kind, cells: int) -> npt.NDArray[np.float32]:
    """[G, S]: sums over each group, divided by the root of its size."""
    found = np.zeros((len(kind), cells), np.float32)
    for group, members in zip(found, kind, strict=True):
        group[list(members)] = len(members) ** -0.5
    return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _to_cells(kind: Kind, cells: int, summed: Float[Array, "B G *X"]) -> Float[Array, "B S *X"]:
    """What the groups of each cell have, added up. Its gradient is a product instead of autodiff's
    scatter, which a CPU takes long for."""
    return sum(summed[:, groups] for groups in groups_of_cells(kind, cells).T)  # type: ignore


def _to_groups(
    kind: Kind, cells: int, _: None, gradient: Float[Array, "B S *X"]
) -> tuple[Float[Array, "B G *X"]]:
    places = np.zeros((len(kind), cells), np.float32)
    for groups in groups_of_cells(kind, cells).T:
        places[groups, np.arange(cells)] = 1
    return (jnp.einsum("gs,bs...->bg...", places, gradient).astype(gradient.dtype),)


_to_cells.defvjp(lambda kind, cells, x: (_to_cells(kind, cells, x), None), _to_groups)


class UnitsBlock(nn.Module):
    """x ← RMS(x + W_down(silu(g) · u)) of [g, u] = W [x, m_1, …, m_K].

    m_k is, for each kind of units, what the nodes of the same value in a node's units send,
    silu(W_send x), summed and for each unit divided by the root of its size. The last are from the
    nodes of the same cell, where there are several values.

    Attributes:
        units: Kinds of units of the S cells.
        values: N; x has S · N nodes, those of a cell side by side.
        width: Width of the gated layer.
        unit_width: Channels that are sent for each kind.
    """

    units: Units
    values: int
    width: int
    unit_width: int
    eps: float = 1e-5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        rows, nodes, size = x.shape
        kinds = len(self.units) + (self.values > 1)
        # One axis of nodes: gradients of kernels, which contract them, are slow over two (CPU).
        flat = x.reshape(-1, size)
        sent = jax.nn.silu(self._dense(kinds * self.unit_width, "send_proj")(flat))
        sent = sent.reshape(rows, nodes // self.values, self.values, kinds * self.unit_width)
        seen = [flat, *(m.reshape(len(flat), -1) for m in self._received(sent))]
        inner = self._dense(2 * self.width, "gate_up_proj")(jnp.concatenate(seen, axis=-1))
        out = self._dense(size, "down_proj")(gated_silu(inner))
        return rms_norm(x + out.reshape(x.shape), self.eps)

    def _received(self, sent: Float[Array, "B S N C"]) -> Iterator[Float[Array, "B S N M"]]:
        cells, size = sent.shape[1], self.unit_width
        for number, kind in enumerate(self.units):
            part = sent[..., number * size : (number + 1) * size]
            summed = jnp.einsum("gs,bsnm->bgnm", _sums(kind, cells), part)
            yield _to_cells(kind, cells, summed.astype(self.dtype))
        if self.values > 1:
            part = sent[..., -size:]
            of_cell = part.sum(2, keepdims=True) / np.sqrt(self.values)
            yield jnp.broadcast_to(of_cell.astype(self.dtype), part.shape)

    def _dense(self, size: int, name: str) -> Dense:
        return Dense(
            size,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun_truncated_normal,
            name=name,
        )
