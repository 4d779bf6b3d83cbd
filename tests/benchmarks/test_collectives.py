"""Collectives of programs of which they are known."""

import re

import jax
import jax.numpy as jnp
import pytest
from analysis.collectives import collectives, table
from jax.sharding import NamedSharding, PartitionSpec
from scaling import compiled

from hrm_jax import tasks
from hrm_jax.tasks.base import MeshConfig
from hrm_jax.training.sharding import make_mesh


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(2, 2))


def _found(function, mesh, *specs, out=None, shape=(8, 16)):
    """(kind, group, times, bytes of the result) of each collective of a function of arrays."""
    args = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for spec in specs
    ]
    options = {} if out is None else {"out_shardings": NamedSharding(mesh, out)}
    compiled = jax.jit(function, **options).lower(*args).compile()
    found = collectives(compiled)
    assert collectives(compiled.as_text()) == found
    return found


def _brief(found):
    return [(x.kind, x.group, x.times, x.result_bytes) for x in found]


WHOLE = PartitionSpec()


def test_a_sum_over_all_devices(mesh):
    (one,) = found = _found(lambda x: x.sum(0), mesh, PartitionSpec(("data", "fsdp")), out=WHOLE)
    assert _brief(found) == [("all-reduce", 4, 1, 64)]
    assert one.shapes == ("f32[16]",)
    assert one.moved_bytes == 2 * 3 * 64 // 4
    assert one.exact
    assert "reduce_sum" in one.source


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_gathering_along_one_axis(axis, mesh):
    found = _found(lambda x: x, mesh, PartitionSpec(axis), out=WHOLE)
    assert _brief(found) == [("all-gather", 2, 1, 512)]
    assert found[0].moved_bytes == 256


def test_manual_collectives(mesh):
    def each(x):
        y = jax.lax.psum_scatter(x, "data", scatter_dimension=0, tiled=True)
        z = jax.lax.all_to_all(x, "fsdp", 1, 0, tiled=True)
        w = jax.lax.ppermute(x, ("data", "fsdp"), [(0, 1), (1, 2), (2, 3), (3, 0)])
        return y, z, w

    spec = PartitionSpec(("data", "fsdp"))
    function = jax.shard_map(each, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    found = _found(function, mesh, spec)
    assert sorted(_brief(found)) == [
        ("all-to-all", 2, 1, 128),
        ("collective-permute", 4, 1, 128),
        ("reduce-scatter", 2, 1, 64),
    ]
    assert sorted(x.moved_bytes for x in found) == [64, 64, 128]


def test_loops_multiply(mesh):
    def function(x):
        def inner(c, _):
            return c + (c * x).sum(), None

        def outer(c, _):
            return jax.lax.scan(inner, c, length=3)[0] * 2, None

        return jax.lax.scan(outer, jnp.float32(1), length=5)[0]

    found = _found(function, mesh, PartitionSpec(("data", "fsdp")), out=WHOLE)
    assert sum(x.times for x in found) >= 15
    assert {(x.kind, x.times, x.exact) for x in found} == {("all-reduce", 15, True)}


def test_a_loop_that_nobody_knows_the_end_of(mesh):
    def function(x):
        def turn(c):
            return c * 2, (c * x).sum()

        return jax.lax.while_loop(lambda c: c[1] < 100, lambda c: turn(c[0]), (x, jnp.float32(0)))

    found = _found(function, mesh, PartitionSpec(("data", "fsdp")))
    assert [(x.kind, x.exact) for x in found] == [("all-reduce", False)]
    assert "≥ " in table(found)


def test_one_device_needs_none():
    mesh = make_mesh(MeshConfig(1, 1), jax.devices()[:1])
    assert _found(lambda x: x.sum(), mesh, WHOLE, out=WHOLE) == []
    assert table([]).count("\n") == 0


def test_what_is_no_program():
    with pytest.raises(ValueError, match="expected the text of a compiled program"):
        collectives("module @jit_f {")


HEADER = "HloModule jit_f, num_partitions=8\n\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "%a = (bf16[4,2]{1,0}, bf16[32,2]{1,0}) all-gather-start(%p), "
            "replica_groups=[1,8]<=[8], dimensions={0}",
            ("all-gather", 8, 1, 128),
        ),
        (
            "%a = ((f32[8]{0}, f32[4]{0}), (f32[2]{0}, f32[1]{0})) reduce-scatter-start(%p, %q), "
            "replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add",
            ("reduce-scatter", 4, 1, 12),
        ),
        (
            "%a = (f32[8]{0:T(8)}, pred[3]{0}) all-reduce-start(%p, %q), "
            "replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add",
            ("all-reduce", 2, 1, 35),
        ),
        (
            "%a = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%p), "
            "source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 8, 1, 32),
        ),
        (
            "%a = f8e4m3fn[16]{0} all-gather(%p), replica_groups=mesh['axis_0'=4,'axis_1'=2], "
            "device_ids=([2,4]T(1,0)) {'axis_0':(1)2,'axis_1'}, dimensions={0}",
            ("all-gather", 4, 1, 16),
        ),
    ],
)
def test_forms_of_other_backends(line, expected):
    text = f"{HEADER}ENTRY %main (p: f32[8]) -> f32[8] {{\n  {line}\n  %d = f32[8] x-done(%a)\n}}\n"
    assert _brief(collectives(text)) == [expected]


@pytest.fixture(scope="module")
def steps(tiny):
    """The collectives of a Sudoku step on a mesh, and the bytes of its parameters."""

    def make(data, fsdp, **fields):
        mesh = {"data": data, "fsdp": fsdp, "smallest": 64}
        config = tasks.parse(tiny(mesh=mesh, model__H_cycles=1, model__L_cycles=1, **fields))
        task = tasks.build(config)
        params = jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)).params)
        found = collectives(compiled(task, jax.devices()[:4]))
        return found, sum(x.size * x.dtype.itemsize for x in params)

    return make


def test_a_data_parallel_step_only_sums_gradients(steps):
    found, size = steps(4, 1, model__q_target="none")
    large = [x for x in found if x.result_bytes > size / 4]
    assert [(x.kind, x.group, x.times) for x in large] == [("all-reduce", 4, 1)]
    assert size <= large[0].result_bytes < 1.01 * size
    # The rest: rows of the puzzle table (8 of 32 columns), and sums for the metrics.
    assert sum(x.result_bytes * x.times for x in found if x not in large) <= 4 * 8 * 32 * 4


def test_a_divided_step_gathers_parameters_once_and_nothing_else(steps):
    found, size = steps(2, 2)
    gathers = [x for x in found if re.search(r"sharding_constraint|state\.params", x.source)]
    assert {(x.kind, x.group, x.times) for x in gathers} == {("all-gather", 2, 1)}
    assert 0.9 * size < sum(x.result_bytes for x in gathers) <= size
    sums = sum(x.result_bytes for x in found if x.kind in ("all-reduce", "reduce-scatter"))
    assert sums < 1.6 * size  # along fsdp, and of half of them along data
    assert all(x.times == 1 for x in found)
    rest = [x for x in found if x not in gathers and x.kind not in ("all-reduce", "reduce-scatter")]
    assert sum(x.result_bytes for x in rest) <= 4 * 8 * 32 * 4
