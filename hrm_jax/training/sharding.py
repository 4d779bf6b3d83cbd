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


def state_shardings(state: Any, mesh: Mesh, batch_size: int, shard_tables: bool = False) -> Any:
    """Rows of the carry are spread over the mesh; everything else is on every device.

    Tables may be spread too, by columns: any number of devices then holds equal parts of a table
    whose number of rows comes from the data, and each looks up its columns by itself.

    Args:
        state: A `State`, or one of `jax.ShapeDtypeStruct`s.
        mesh: From `make_mesh`.
        batch_size: Rows of the carry.
        shard_tables: Whether to spread the tables.

    Returns:
        A tree of shardings like `state`.

    Raises:
        ConfigError: The devices do not divide the batch, or the columns of a table.
    """
    require(
        batch_size % mesh.size == 0,
        f"config.batch_size: {batch_size} rows cannot be divided among {mesh.size} devices",
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_row = NamedSharding(mesh, PartitionSpec("data"))

    def of_carry(leaf: Any) -> NamedSharding:
        return by_row if leaf.shape[:1] == (batch_size,) else everywhere

    def of_table(leaf: Any) -> NamedSharding:
        require(
            leaf.shape[1] % mesh.size == 0,
            f"config.shard_tables: {leaf.shape[1]} columns (model.puzzle_emb_ndim) cannot be "
            f"divided among {mesh.size} devices",
        )
        return NamedSharding(mesh, PartitionSpec(None, "data"))

    shardings = jax.tree.map(lambda _: everywhere, state)
    if shard_tables:
        shardings = shardings.replace(tables=jax.tree.map(of_table, state.tables))
    return shardings.replace(carry=jax.tree.map(of_carry, state.carry))


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Turns this process' rows of a batch into arrays over the whole mesh."""
    by_row = NamedSharding(mesh, PartitionSpec("data"))
    return {
        name: jax.make_array_from_process_local_data(by_row, rows) for name, rows in batch.items()
    }
