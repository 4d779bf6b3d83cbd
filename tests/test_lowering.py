"""What is trained on a CPU is also a CUDA program: lowered here, run elsewhere."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from analysis import gpu_compiler

from hrm_jax import tasks
from hrm_jax.models import act

PLATFORMS = ["cuda"]
SIZES = {
    "laptop": {
        "data__size": 6, "batch_size": 64, "microbatch_size": 32, "model__hidden_size": 64,
        "model__H_layers": 2, "model__L_layers": 2, "model__puzzle_emb_ndim": 64,
        "model__expansion": 4.0, "model__q_target": "none", "optimizer__name": "muon",
        "optimizer__ema": 0.99,
    },
    "bfloat16": {"model__forward_dtype": "bfloat16", "optimizer__name": "adam_atan2"},
    "kernels": {"model__forward_dtype": "bfloat16", "model__attention": "pallas"},
}  # fmt: skip


@pytest.fixture(scope="module", params=SIZES)
def task(request, tiny):
    return tasks.build(tasks.parse(tiny(**SIZES[request.param])))


def _lowered_step(task):
    """The training step as StableHLO for CUDA."""
    state = jax.eval_shape(task.init, jax.random.key(0))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(next(task.batches()))
    )
    state = state.replace(key=jax.random.key_data(jax.random.key(0)))  # exports take no typed keys

    def step(state, batch):
        new, metrics = task.step(state.replace(key=jax.random.wrap_key_data(state.key)), batch)
        return new.replace(key=jax.random.key_data(new.key)), metrics

    with gpu_compiler.target():
        traced = jax.jit(lambda *args: jax.tree.leaves(step(*args))).trace(state, batch)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_training_step(task):
    text = _lowered_step(task)
    assert "stablehlo.dot_general" in text
    if task.config.model.forward_dtype == "bfloat16":
        assert "xbf16>" in text
    assert ("triton" in text) == (task.config.model.attention == "pallas")
    assert "f64" not in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["transformer", "planner_executor"])
def test_language(name, dtype):
    model = {"name": name, "hidden_size": 32, "num_heads": 2, "ffn_size": 64, "dtype": dtype}
    layers = (
        {"num_layers": 2, "scan_layers": True, "remat": True}
        if name == "transformer"
        else {"planner_layers": 1, "executor_layers": 1}
    )
    data = {"numbers_below": 1000, "num_train": 20, "num_test": 2}
    config = {"task": "pairs", "data": data, "model": {**model, **layers}, "batch_size": 4}
    task = tasks.build(tasks.parse(config))
    text = _lowered_step(task)
    assert "stablehlo.dot_general" in text
    assert ("xbf16>" in text) == (dtype == "bfloat16")
    params = jax.eval_shape(task.init, jax.random.key(0)).params
    batch, _ = task.held_out(limit=2)
    answers = jax.export.export(jax.jit(task._answers), platforms=PLATFORMS)(params, batch)
    assert "stablehlo.while" in answers.mlir_module()


def test_solver(task):
    config = task.config.model
    variables = task.weights(jax.eval_shape(task.init, jax.random.key(0)))
    inputs = jax.ShapeDtypeStruct((64, config.seq_len), jnp.int32)
    identifiers = jax.ShapeDtypeStruct((64,), jnp.int32)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    solver = functools.partial(act.solve, config, slots=32, trace=True)

    def solve(*args):
        out = solver(*args)
        return {f.name: getattr(out, f.name) for f in dataclasses.fields(out)}

    with gpu_compiler.target():
        exported = jax.export.export(
            jax.jit(solve),
            platforms=PLATFORMS,
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")],
        )(variables, inputs, identifiers, count)
    assert exported.platforms == ("cuda",)
    assert "stablehlo.while" in exported.mlir_module()
    assert [x.shape for x in exported.out_avals if x.ndim == 3] == [(64, 3, config.seq_len)]
