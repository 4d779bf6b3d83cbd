"""The numbers of the PyTorch reference: pieces, carried steps, gradients, whole trajectories."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.compilation import jit
from hrm_jax.interop.hrm_names import from_reference, to_reference
from hrm_jax.interop.torch import load_hrm
from hrm_jax.layers.norm import rms_norm
from hrm_jax.models import act, hrm
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.act_training import ACTTrainer, segment_gradients

PIECE, STEP = 1e-5, 1e-4  # relative to the largest number of an array
METRICS = ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps")
LOSSES = ("lm_loss", "q_halt_loss", "q_continue_loss")


def _close(ours, theirs, tolerance, name):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, name
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.fixture(scope="module")
def rope(parity):
    return parity / "rope"


@pytest.fixture(scope="module")
def numbers(rope):
    @functools.cache
    def read(name):
        with np.load(rope / f"{name}.npz") as file:
            return dict(file)

    return read


@pytest.fixture(scope="module")
def model(rope):
    return load_hrm(rope / "state_dict.npz", rope / "config.json")


@pytest.fixture(scope="module")
def batch(numbers):
    def make(i):
        names = ("inputs", "labels", "puzzle_identifiers")
        return {name: jnp.asarray(numbers("batches")[f"b{i}/{name}"]) for name in names}

    return make


@pytest.fixture(scope="module")
def pieces(model, batch, numbers):
    """Every piece that blocks.npz has, computed by our modules."""
    net = hrm.HRM(model.config).bind(model.variables)
    first = batch(0)
    rows = act.puzzle_rows(model.variables, first["puzzle_identifiers"])
    x = net.embed(first["inputs"], rows)
    block_in = jnp.asarray(numbers("blocks")["block_in"])
    rotary = net._rotary(x.shape[1])
    layer = net.L_level.layers[0]
    constants = model.variables["constants"]
    z_H = jnp.broadcast_to(constants["H_init"], x.shape)
    z_L = net.update_L(z_H, jnp.broadcast_to(constants["L_init"], x.shape), x)
    return {
        "input_embeddings": x,
        "block_in": constants["L_init"] + (constants["H_init"] + x),
        "cos": rotary[0],
        "sin": rotary[1],
        "attn_out": layer.self_attn(block_in, rotary),
        "mlp_out": layer.mlp(block_in),
        "rms_norm": rms_norm(block_in, model.config.rms_norm_eps),
        "block_out": layer(block_in, rotary),
        "L_level_out": z_L,
        "H_level_out": net.update_H(z_H, z_L),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("input_embeddings", "block_in", "cos", "sin", "attn_out", "mlp_out", "rms_norm"),
        *("block_out", "L_level_out", "H_level_out"),
    ],
)
def test_pieces(name, pieces, numbers):
    _close(pieces[name], numbers("blocks")[name], PIECE, name)


def _check_carry(carry, expected, step):
    for name in ("steps", "halted"):
        np.testing.assert_array_equal(getattr(carry, name), expected[f"{step}/{name}"], name)
    for name, data in carry.current_data.items():
        np.testing.assert_array_equal(data, expected[f"{step}/current_data/{name}"], name)
    for name in ("z_H", "z_L"):
        _close(getattr(carry, name), expected[f"{step}/{name}"], STEP, name)


def test_three_carried_evaluation_steps(model, batch, numbers):
    expected = numbers("eval_steps")
    carry = model.initial_carry(batch(0))
    for k in range(3):
        step = f"step{k}"
        carry, out = model.act_step(carry, batch(0))
        _close(out.logits, expected[f"{step}/logits"], STEP, "logits")
        _close(out.q_halt, expected[f"{step}/q_halt_logits"], STEP, "q_halt")
        _close(out.q_continue, expected[f"{step}/q_continue_logits"], STEP, "q_continue")
        _check_carry(carry, expected, step)


def _check_training_step(result, expected, step, template):
    outputs = result.outputs
    _close(outputs.logits, expected[f"{step}/logits"], STEP, "logits")
    _close(outputs.q_halt, expected[f"{step}/q_halt_logits"], STEP, "q_halt")
    _close(outputs.q_continue, expected[f"{step}/q_continue_logits"], STEP, "q_continue")
    _close(outputs.target_q_continue, expected[f"{step}/target_q_continue"], STEP, "target")
    _check_carry(result.carry, expected, step)
    metrics = result.metrics
    np.testing.assert_allclose(metrics["loss"][0], expected[f"{step}/loss"], rtol=STEP)
    for name in LOSSES:
        np.testing.assert_allclose(metrics[name][0], expected[f"{step}/metrics/{name}"], rtol=STEP)
        assert metrics[name][1] == 4
    for name in METRICS:
        np.testing.assert_allclose(metrics[name][0], expected[f"{step}/metrics/{name}"], rtol=STEP)
        assert metrics[name][1] == expected[f"{step}/metrics/count"]
    ours = to_reference({**template, "params": result.params})
    prefix = f"{step}/grad/"
    local = "model.inner.puzzle_emb.local_weights"
    names = {k.removeprefix(prefix) for k in expected if k.startswith(prefix)} - {local}
    assert names == set(ours) - {
        "model.inner.H_init",
        "model.inner.L_init",
        "model.inner.puzzle_emb.weights",
    }
    for name in names:
        _close(ours[name], expected[prefix + name], STEP, name)
    _close(result.rows, expected[prefix + local], STEP, local)
    np.testing.assert_array_equal(
        result.carry.current_data["puzzle_identifiers"], expected[f"{step}/local_ids"]
    )


@pytest.mark.parametrize("microbatch_size", [0, 1, 2])
def test_three_carried_training_steps(microbatch_size, model, batch, numbers):
    """Weights fixed, exploration off; rows that halted take the next batch."""
    expected = numbers("train_steps")
    gradients = jit(
        lambda v, carry: segment_gradients(
            model.config, "stablemax", v, carry, jnp.zeros(4, jnp.int32), microbatch_size
        )
    )
    carry = act.initial_carry(model.config, batch(0))
    for k in range(3):
        carry = act.refill(carry, batch(k), model.variables["constants"])
        result = gradients(model.variables, carry)
        _check_training_step(result, expected, f"step{k}", model.variables)
        carry = result.carry


def test_softmax_training_step(model, batch, numbers):
    carry = act.refill(
        act.initial_carry(model.config, batch(0)), batch(0), model.variables["constants"]
    )
    gradients = jit(
        lambda v, carry: segment_gradients(
            model.config, "softmax", v, carry, jnp.zeros(4, jnp.int32)
        )
    )
    result = gradients(model.variables, carry)
    _check_training_step(result, numbers("train_steps_softmax"), "step0", model.variables)


@pytest.mark.parametrize("form", ["upstream", "a127"])
def test_twenty_training_steps(form, model, rope, numbers):
    expected = numbers(f"traj_{form}")
    given = json.loads((rope / "traj_hparams.json").read_text())
    rule = OptimizerConfig(
        name="adam_atan2" if form == "upstream" else "adam_atan2_a127",
        learning_rate=given["lr"],
        warmup_steps=given["lr_warmup_steps"],
        lr_min_ratio=given["lr_min_ratio"],
        b1=given["beta1"],
        b2=given["beta2"],
        weight_decay=given["weight_decay"],
        puzzle_emb_lr=given["puzzle_emb_lr"],
        puzzle_emb_weight_decay=given["puzzle_emb_weight_decay"],
    )
    trainer = ACTTrainer(model.config, rule, "stablemax", given["total_steps"])
    batches = [
        {k.removeprefix("batches/"): jnp.asarray(v[i]) for k, v in expected.items()
         if k.startswith("batches/")}
        for i in range(20)
    ]  # fmt: skip
    key = jax.random.key(0)
    state = trainer.init(key, model.variables, batches[0])
    step = jit(trainer.step)
    read = jit(lambda v, z: hrm.HRM(model.config).apply(v, z, method="halting_values"))
    for i in range(20):
        before = state.variables(averaged=False)
        state, metrics = step(state, batches[i], key)
        total, rows = metrics["loss"]
        np.testing.assert_allclose(total / rows, expected["loss"][i], rtol=STEP)
        np.testing.assert_allclose(metrics["learning_rate"][0], expected["lr"][i], rtol=1e-6)
        for name in LOSSES:
            np.testing.assert_allclose(
                metrics[name][0], expected[f"metrics/{name}"][i], rtol=STEP, atol=STEP
            )
        for name in METRICS:
            np.testing.assert_allclose(metrics[name][0], expected[f"metrics/{name}"][i], rtol=STEP)
        np.testing.assert_array_equal(state.carry.steps, expected["steps"][i])
        np.testing.assert_array_equal(state.carry.halted, expected["halted"][i])
        q_halt, q_continue = read(before, state.carry.z_H)
        _close(q_halt, expected["q_halt"][i], STEP, "q_halt")
        _close(q_continue, expected["q_continue"][i], STEP, "q_continue")
        _close(state.tables["puzzle_emb"], expected["puzzle_emb"][i], STEP, "puzzle_emb")
        if i + 1 in (1, 2, 5, 20):
            prefix = f"params_after{i + 1}/"
            ours = to_reference(state.variables())
            theirs = {k.removeprefix(prefix): v for k, v in expected.items() if prefix in k}
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                _close(ours[name], value, STEP, f"{name} after step {i + 1}")


def test_names_are_inverse(model):
    again = from_reference(to_reference(model.variables), model.config)
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(model.variables))
