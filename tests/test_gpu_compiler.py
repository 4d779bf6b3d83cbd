"""Kernels and steps compiled for an H200, which need not be there."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from analysis import gpu_compiler
from analysis.collectives import collectives
from analysis.costs import kernels, product_flops
from jax.sharding import NamedSharding, PartitionSpec

from hrm_jax import tasks
from hrm_jax.kernels.attention import attention, self_attention
from hrm_jax.kernels.pallas_attention import held_whole
from hrm_jax.kernels.rotary import rotary_tables
from hrm_jax.layers.feed_forward import gated_silu
from hrm_jax.training.sharding import divided_step, make_mesh, state_shardings


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        gpu_compiler.devices()
    except RuntimeError as error:
        pytest.skip(str(error))


def resources(*args):
    """What our kernels take; without numbers where the compiler does not tell (JAX 0.11)."""
    try:
        found = gpu_compiler.kernel_resources(*args)
    except RuntimeError as error:
        if "no PTX" not in str(error):
            raise
        names = re.findall(r"/(attention_\w+)/pallas_call", " ".join(
            kernel.source for kernel in kernels(gpu_compiler.compile_for_gpu(*args))
        ))  # fmt: skip
        found = {name: gpu_compiler.Resources(0, 0, 0) for name in names}
    return {name: used for name, used in found.items() if name.startswith("attention")}


def output_and_gradients(function, operands):
    """The function of (operands, gradient of the output)."""

    def run(operands, gradient):
        out, back = jax.vjp(function, *operands)
        return out, back(gradient)

    return run, operands, jax.eval_shape(function, *operands)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(("length", "size"), [(1, 32), (82, 64), (82, 128), (901, 64), (901, 128)])
def test_attention_with_lengths_and_groups(length, size, dtype):
    """Triton and the assembler take every kernel, and 16-bit ones up to C 64 fit into registers."""
    q = jax.ShapeDtypeStruct((2, length, 4, size), dtype)
    k = jax.ShapeDtypeStruct((2, length, 2, size), dtype)
    for causal in (False, True) if length > 128 else (True,):

        def engine(q, k, v, causal=causal):
            lengths = jnp.array([length, 1])
            return attention(q, k, v, causal=causal, lengths=lengths, impl="pallas")

        ours = resources(*output_and_gradients(engine, (q, k, k)))
        assert len(ours) == (2 if held_whole(length, size, dtype) else 3)
        if dtype == jnp.bfloat16 and size <= 64:
            ours.pop("attention_short_back", None)  # loops over a group's heads
            assert all(used.spilled == 0 for used in ours.values()), ours


@pytest.mark.parametrize("length", [82, 97])
def test_self_attention_moves_nothing_but_its_operands(length):
    """No copy of queries, keys or values is made around the kernels that turn them."""
    qkv = jax.ShapeDtypeStruct((16, length, 3, 8, 64), jnp.bfloat16)
    engine = functools.partial(self_attention, rotary=rotary_tables(length, 64, 1e4), impl="pallas")
    step = output_and_gradients(engine, (qkv,))
    ours = resources(*step)
    assert set(ours) == {"attention_self", "attention_self_back"}
    assert all(used.spilled == 0 for used in ours.values())
    found = kernels(gpu_compiler.compile_for_gpu(*step))
    size = qkv.size * 2
    tables = 2 * length * 32 * 4
    forward, backward = (k for k in found if "triton" in k.kind)
    assert forward.moved_bytes == size + size // 3 + tables
    assert backward.moved_bytes == 2 * size + size // 3 + tables
    assert sum(k.moved_bytes for k in found) <= forward.moved_bytes + backward.moved_bytes + 1024


def test_the_gradient_of_gated_silu_is_one_kernel():
    gate_up = jax.ShapeDtypeStruct((1024, 3072), jnp.bfloat16)

    def gradient(gate_up, outer, weights):
        (found,) = jax.vjp(gated_silu, gate_up)[1](outer)
        return found @ weights, found.T @ found  # two users, as in a layer

    shapes = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((1024, 1536), (3072, 512)))
    found = kernels(gpu_compiler.compile_for_gpu(gradient, gate_up, *shapes))
    (fused,) = (kernel for kernel in found if "transpose" in kernel.source)
    assert fused.moved_bytes == 2 * (2 * 1024 * 3072 + 1024 * 1536)


def test_products_and_loops_are_counted():
    def function(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, y: jnp.tanh(y @ w), x)

    x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16)
    program = gpu_compiler.compile_for_gpu(function, x, x)
    assert product_flops(program) == 5 * 2 * 256**3
    products = [kernel for kernel in kernels(program) if kernel.kind == "product"]
    assert sum(kernel.times for kernel in products) == 5


def build(**fields):
    config = {"task": "sudoku", "batch_size": 32, "data": {"size": 4, "num_train": 8}}
    model = {"hidden_size": 128, "num_heads": 2, "puzzle_emb_ndim": 128, "L_layers": 1}
    model |= {"forward_dtype": "bfloat16", "halt_max_steps": 2, "H_cycles": 1, "L_cycles": 1}
    model |= fields.pop("model", {})
    if model.get("name") != "trm":
        model |= {"H_layers": 1, "q_target": "none"}
    return tasks.build(tasks.parse(config | fields | {"model": model}))


def test_hrm_step():
    task = build(model={"attention": "pallas"})
    state = jax.eval_shape(task.init, jax.random.key(0))
    program = gpu_compiler.compile_for_gpu(task.step, state, next(task.batches()), donate_argnums=0)
    names = {kernel.source.rpartition("/")[0].rpartition("/")[2] for kernel in kernels(program)}
    assert {"attention_self", "attention_self_back"} <= names
    memory = program.memory_analysis()
    tables = [state.params, state.opt_state]
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tables))
    assert memory.argument_size_in_bytes > size
    assert memory.alias_size_in_bytes > size  # updated in place


@pytest.mark.parametrize(
    "fields",
    [
        {"model": {"attention": "pallas"}},
        {"microbatch_size": 16},
        {"model": {"name": "trm"}},
        {"mesh": {"fsdp": 2, "smallest": 64}},
    ],
    ids=["kernels", "microbatches", "trm", "fsdp"],
)
def test_gradients_are_sent_once(fields):
    """Over four GPUs a step sums each gradient once, and moves no activations."""
    task = build(**fields)
    mesh = make_mesh(task.config.mesh, gpu_compiler.devices(4))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    shardings = state_shardings(shapes, mesh, smallest=task.config.mesh.smallest)

    def placed(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    by_row = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    batch = {name: placed(x, by_row) for name, x in next(task.batches()).items()}
    step = divided_step(task.step, mesh, shardings)
    with jax.set_mesh(mesh):
        lowered = step.lower(jax.tree.map(placed, shapes, shardings), batch)
        program = gpu_compiler.compiled(lowered)
    found = collectives(program)
    count = sum(x.size for x in jax.tree.leaves(shapes.params))
    summed = [x for x in found if x.kind in ("all-reduce", "reduce-scatter")]
    large = [x for x in summed if x.result_bytes * x.group > count / 4]
    assert large
    assert all(x.times == 1 for x in large)
    # 2 bytes each, or 4 where gradients of several uses were added up in float32.
    shared = fields.get("model", {}).get("name") == "trm"
    assert sum(x.result_bytes for x in large) < (4.4 if shared else 2.2) * count
    gathered = sum(x.result_bytes * x.times for x in found if x.kind == "all-gather")
    whole = 4 * count if "mesh" in fields else 0  # parameters, where they are divided
    activations = 32 * 17 * 128 * 2
    assert gathered < whole + activations
