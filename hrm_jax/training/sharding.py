"""How a run's arrays lie on its devices: a mesh of `data` × `fsdp`.

Rows of batches and carries are divided over both axes. Parameters, their average and the
optimizer's state are whole along `data` and divided along `fsdp`. There is no third axis that
divides single matrix products (`tensor`): all models here fit a device whole while a step runs (up
to a billion parameters, 4 GB), so it would only add collectives to every layer.

The parameters are made whole once, at the start of a step, and not where each layer needs its own:
recurrent models use them dozens of times in a step, and each time would be another gather.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hrm_jax.fields import require
from hrm_jax.tasks.base import MeshConfig, State

_ROWS = PartitionSpec(("data", "fsdp"))


def make_mesh(
    config: MeshConfig | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """The mesh `data` × `fsdp` that a config asks for.

    Args:
        config: Its sizes; by default all devices are along `data`.
        devices: Devices to use; by default all of all processes, those of a process side by side,
            so that its rows of a batch are on its own devices.

    Raises:
        ConfigError: The sizes do not fit the devices, or processes have unequal numbers of them.
    """
    config = config or MeshConfig()
    if devices is None:
        devices = sorted(jax.devices(), key=lambda x: (x.process_index, x.id))
    each = collections.Counter(device.process_index for device in devices)
    require(
        len(set(each.values())) == 1,
        f"config.mesh: the processes have {sorted(each.values())} devices; expected equal numbers",
    )
    return jax.make_mesh(
        mesh_sizes(config, len(devices)),
        ("data", "fsdp"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, int]:
    """Sizes of `data` and `fsdp` for a number of devices, with 0 filled in.

    Raises:
        ConfigError: They do not fit.
    """
    data, fsdp = config.data, config.fsdp
    given = (data or 1) * (fsdp or 1)
    if 0 in (data, fsdp):
        require(
            devices % given == 0,
            f"config.mesh: data={data}, fsdp={fsdp} (0 is the rest), but the number of devices, "
            f"{devices}, cannot be divided by {given}",
        )
        rest = devices // given
        return data or rest, fsdp or rest
    require(given == devices, f"config.mesh: {data} × {fsdp} does not equal the {devices} devices")
    return data, fsdp


def parameter_spec(shape: Sequence[int], fsdp: int, smallest: int) -> PartitionSpec:
    """How an array shaped like a parameter is divided: its longest axis that `fsdp` divides.

    Args:
        shape: Its shape; of axes of one length the first is taken.
        fsdp: Size of the axis of the mesh.
        smallest: Arrays of fewer elements stay whole, for a collective of its own costs more than
            the memory is worth.
    """
    axes = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not axes or math.prod(shape) < smallest:
        return PartitionSpec()
    longest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * longest, "fsdp")


def state_shardings(
    state: Any,
    mesh: Mesh,
    batch_size: int,
    shard_tables: bool = False,
    smallest: int = MeshConfig.smallest,
) -> Any:
    """How a state is divided: rows of the carry over all devices, what is learnt over `fsdp`.

    Tables may be divided too, by columns over all devices: any number of devices then holds equal
    parts of a table whose number of rows comes from the data, and each looks up its columns by
    itself.

    Args:
        state: A `State`, or one of `jax.ShapeDtypeStruct`s.
        mesh: From `make_mesh`.
        batch_size: Rows of the carry.
        shard_tables: Whether to divide the tables.
        smallest: As in `parameter_spec`.

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
    by_row = NamedSharding(mesh, _ROWS)

    def of_parameter(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, parameter_spec(leaf.shape, mesh.shape["fsdp"], smallest))

    def of_carry(leaf: Any) -> NamedSharding:
        return by_row if leaf.shape[:1] == (batch_size,) else everywhere

    def of_table(leaf: Any) -> NamedSharding:
        require(
            leaf.shape[1] % mesh.size == 0,
            f"config.shard_tables: {leaf.shape[1]} columns (model.puzzle_emb_ndim) cannot be "
            f"divided among {mesh.size} devices",
        )
        return NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))

    shardings = jax.tree.map(lambda _: everywhere, state)
    if shard_tables:
        shardings = shardings.replace(tables=jax.tree.map(of_table, state.tables))
    return shardings.replace(
        params=jax.tree.map(of_parameter, state.params),
        opt_state=jax.tree.map(of_parameter, state.opt_state),
        ema=jax.tree.map(of_parameter, state.ema),
        carry=jax.tree.map(of_carry, state.carry),
    )


def divided_step(
    step: Callable[[State, Any], tuple[State, Any]],
    mesh: Mesh,
    shardings: Any,
    jit: Callable[..., Any] = jax.jit,
) -> Any:
    """Jits a task's step for a state that is divided, which it takes over and gives back.

    Where it is divided along `fsdp`, the step gathers the parameters once, and each device updates
    its part only, from a gradient that is summed for that part. To be compiled within
    `jax.set_mesh(mesh)`: kernels divide their rows over it.

    Args:
        step: Of (state, batch): the new state and metrics.
        mesh: As `make_mesh` makes it.
        shardings: Of the state, as `state_shardings` says.
        jit: What jits.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def gathered(state: State, batch: Any) -> tuple[State, Any]:
        params = jax.lax.with_sharding_constraint(state.params, whole)
        return step(state.replace(params=params), batch)

    function = step if mesh.shape["fsdp"] == 1 else gathered
    return jit(function, donate_argnums=0, out_shardings=(shardings, whole))


def for_evaluation(state: State) -> State:
    """The state with weights that need no other process, whole on each device of this one.

    Tables that are divided stay so within one process.
    """
    leaves = jax.tree.leaves(state.params)
    sharding = leaves[0].sharding if leaves else None
    several = jax.process_count() > 1
    if not isinstance(sharding, NamedSharding):
        return state
    if not several and sharding.mesh.shape.get("fsdp", 1) == 1:
        return state
    parts = {"params": state.params, "ema": state.ema, "constants": state.constants}
    if several:
        parts["tables"] = state.tables
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    parts = jax.jit(_same, out_shardings=everywhere)(parts)
    return state.replace(**(jax.tree.map(_on_own_devices, parts) if several else parts))


def _same(tree: Any) -> Any:
    return tree


def _on_own_devices(array: jax.Array) -> jax.Array:
    """An array that is on all devices, as one of this process' devices; nothing is copied."""
    mesh = Mesh([x.device for x in array.addressable_shards], ("own",))
    return jax.make_array_from_single_device_arrays(
        array.shape,
        NamedSharding(mesh, PartitionSpec()),
        [x.data for x in array.addressable_shards],
    )


def place_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Turns this process' rows of a batch into arrays over the whole mesh."""
    by_row = NamedSharding(mesh, _ROWS)
    return {
        name: jax.make_array_from_process_local_data(by_row, rows) for name, rows in batch.items()
    }
