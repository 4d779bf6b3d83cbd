"""How a run's arrays lie on its devices: data parallel over one mesh axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hrm_jax.configs import require


def make_mesh() -> Mesh:
    """One axis, "data", over all devices of all processes."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def state_shardings(state: Any, mesh: Mesh, batch_size: int) -> Any:
    """Rows of the carry are spread over the mesh; everything else is on every device.

    Args:
        state: A `State`, or one of `jax.ShapeDtypeStruct`s.
        mesh: From `make_mesh`.
        batch_size: Rows of the carry.

    Returns:
        A tree of shardings like `state`.

    Raises:
        ConfigError: The devices do not divide the batch.
    """
    require(
        batch_size % mesh.size == 0,
        f"config.batch_size: {batch_size} rows cannot be divided among {mesh.size} devices",
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_row = NamedSharding(mesh, PartitionSpec("data"))

    def of_carry(leaf: Any) -> NamedSharding:
        return by_row if leaf.shape[:1] == (batch_size,) else everywhere

    shardings = jax.tree.map(lambda _: everywhere, state)
    return shardings.replace(carry=jax.tree.map(of_carry, state.carry))


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Turns this process' rows of a batch into arrays over the whole mesh."""
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    return {
        name: jax.make_array_from_process_local_data(by_row, rows) for name, rows in batch.items()
    }
