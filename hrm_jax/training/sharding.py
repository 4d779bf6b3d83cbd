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
    """The mesh `data` × `fsdp` that a config asks for, by default of all devices along `data`.

    Those of a process are side by side, so that its rows of a batch are on its own devices. Raises
    `ConfigError` where the sizes do not fit, or processes have unequal numbers of devices.
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
    """Sizes of `data` and `fsdp`, with 0 filled in; `ConfigError` where the devices do not fit."""
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

    Of fewer elements than `smallest` it stays whole, for a collective of its own costs more than
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
    *,
    shard_tables: bool = False,
    smallest: int = MeshConfig.smallest,
    carry_spec: Any = None,
) -> Any:
    """How a state is divided: rows over all devices, what is learnt and what is frozen over `fsdp`.

    Tables may be divided too, by columns over all devices: any number of devices then holds equal
    parts of a table whose number of rows comes from the data, and each looks up its columns by
    itself. `state` is a `State`, or one of shapes; `smallest` as in `parameter_spec`, `carry_spec`
    of `Task.carry_spec`. Raises `ConfigError` where the devices do not divide rows or columns.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def of_parameter(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, parameter_spec(leaf.shape, mesh.shape["fsdp"], smallest))

    def of_rows(leaf: Any) -> NamedSharding:
        _require_divided(leaf.shape[0], mesh.size)
        return NamedSharding(mesh, _ROWS)

    def of_table(leaf: Any) -> NamedSharding:
        if not shard_tables:
            return everywhere
        require(
            leaf.shape[1] % mesh.size == 0,
            f"config.shard_tables: {leaf.shape[1]} columns of a table of embeddings cannot be "
            f"divided among {mesh.size} devices",
        )
        return NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))

    def of_carry(spec: PartitionSpec, leaf: Any) -> NamedSharding:
        sharding = NamedSharding(mesh, spec)
        try:
            sharding.shard_shape(leaf.shape)
        except ValueError:  # the devices cannot share it equally
            return everywhere
        return sharding

    rules = dict.fromkeys(("params", "opt_state", "ema", "frozen"), of_parameter)
    rules |= {"rows": of_rows, "tables": of_table}
    parts = {name: jax.tree.map(rule, getattr(state, name)) for name, rule in rules.items()}
    if carry_spec is not None:
        parts["carry"] = jax.tree.map(
            of_carry,
            carry_spec,
            state.carry,
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )
    return jax.tree.map(lambda _: everywhere, state).replace(**parts)


def _require_divided(rows: int, devices: int) -> None:
    require(
        rows % devices == 0,
        f"config.batch_size: {rows} rows cannot be divided among {devices} devices",
    )


def divided_step(
    step: Callable[[State, Any], tuple[State, Any]],
    mesh: Mesh,
    shardings: Any,
    jit: Callable[..., Any] = jax.jit,
) -> Any:
    """Jits a task's step, and counts it, for a state that is divided as `shardings` say.

    Where it is divided along `fsdp`, the step gathers the parameters once, and each device updates
    its part only, from a gradient that is summed for that part. To be compiled within
    `jax.set_mesh(mesh)`: kernels divide their rows over it. The result is a function of the state
    without what is frozen, which it takes over, a batch, and what is frozen ({} by default), which
    it only reads: the new state, also without, and metrics.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def counted(state: State, batch: Any, frozen: Any = {}) -> tuple[State, Any]:  # noqa: B006
        params = state.params
        if mesh.shape["fsdp"] > 1:
            params = jax.lax.with_sharding_constraint(params, whole)
        new, metrics = step(state.replace(params=params, frozen=frozen), batch)
        return new.replace(step=state.step + 1, frozen={}), metrics

    return jit(counted, donate_argnums=0, out_shardings=(shardings, whole))


def for_evaluation(state: State) -> State:
    """The state with weights that need no other process, whole on each device of this one. Tables
    and carries that are divided stay so within one process; rows and the optimizer's state stay as
    they are."""
    several = jax.process_count() > 1
    names = ("params", "ema", "frozen", *(("tables", "carry") if several else ()))
    parts = {name: getattr(state, name) for name in names}
    sharding = next((x.sharding for x in jax.tree.leaves(state.params)), None)
    if not isinstance(sharding, NamedSharding):
        return state
    if not several and all(x.sharding.is_fully_replicated for x in jax.tree.leaves(parts)):
        return state
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


def place_frozen(array: Any, mesh: Mesh, smallest: int) -> jax.Array:
    """Puts an array that all processes have on the devices, divided as a parameter is."""
    spec = parameter_spec(array.shape, mesh.shape["fsdp"], smallest)
    return jax.make_array_from_callback(
        array.shape, NamedSharding(mesh, spec), lambda index: array[index]
    )


def place_batch(batch: Mapping[str, Any], mesh: Mesh, axis: int = 0) -> dict[str, jax.Array]:
    """Turns this process' rows of a batch, which lie along `axis`, into arrays over the mesh.
    Raises `ConfigError` where the devices do not divide the rows."""
    sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, *_ROWS))
    for rows in batch.values():
        _require_divided(rows.shape[axis] * jax.process_count(), mesh.size)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
