"""The numbers of the PyTorch references: pieces, carried steps, gradients, whole trajectories."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.compilation import jit
from hrm_jax.interop.hrm_names import from_reference, to_reference
from hrm_jax.interop.torch import load_hrm, load_trm
from hrm_jax.kernels.rotary import rotary_tables
from hrm_jax.layers.attention import Attention
from hrm_jax.layers.feed_forward import FeedForward
from hrm_jax.layers.norm import rms_norm
from hrm_jax.models import act
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.recurrent import RecurrentNetwork, think
from hrm_jax.tasks.puzzles.act_training import (
    ACTTrainer,
    PuzzleOptimizerConfig,
    puzzle_weights,
    segment_loss,
)

METRICS = ("accuracy", "exact_accuracy", "q_halt_accuracy", "steps")
EMBEDDINGS = "model.inner.puzzle_emb.local_weights"


def _relative(tolerance):
    """Relative to the largest number of an array."""
    return lambda theirs: tolerance * np.abs(theirs).max()


def _absolute(tolerance):
    return lambda theirs: tolerance


PIECE, GRADIENT, EMA = _relative(1e-5), _relative(1e-4), _absolute(2e-6)


@dataclasses.dataclass(frozen=True)
class Reference:
    """A folder of numbers, what loads its weights, and how near we must be."""

    folder: str
    load: Callable[..., Any]
    forward: Callable[..., float]
    params: Callable[..., float]
    table: Callable[..., float]
    q_halt: Callable[..., float]
    loss: float  # relative
    losses: tuple[str, ...] = ("lm_loss", "q_halt_loss")
    forms: tuple[str, ...] = ("upstream",)
    microbatches: tuple[int, ...] = (0,)


REFERENCES = {
    "hrm": Reference(
        "rope", load_hrm, forward=_relative(1e-4), params=_relative(1e-4),
        table=_relative(1e-4), q_halt=_relative(1e-4), loss=1e-4,
        losses=("lm_loss", "q_halt_loss", "q_continue_loss"), forms=("upstream", "a127"),
        microbatches=(0, 2),
    ),
    **{
        name: Reference(
            name, load_trm, forward=_absolute(5e-5), params=_absolute(5e-6),
            table=_absolute(1e-6), q_halt=_absolute(5e-4), loss=1e-5,
        )
        for name in ("trm_att", "trm_mlp")
    },
}  # fmt: skip


def _close(ours, theirs, tolerance, name):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance(theirs), err_msg=name)


@pytest.fixture(scope="module", params=REFERENCES)
def reference(request):
    return REFERENCES[request.param]


@pytest.fixture(scope="module")
def folder(parity, reference) -> pathlib.Path:
    return parity / reference.folder


@pytest.fixture(scope="module")
def numbers(folder):
    @functools.cache
    def read(name):
        with np.load(folder / f"{name}.npz") as file:
            return dict(file)

    return read


@pytest.fixture(scope="module")
def model(folder, reference):
    return reference.load(folder / "state_dict.npz", folder / "config.json")


@pytest.fixture(scope="module")
def batch(numbers):
    def make(i):
        names = ("inputs", "labels", "puzzle_identifiers")
        return {name: jnp.asarray(numbers("batches")[f"b{i}/{name}"]) for name in names}

    return make


def test_pieces(reference, model, batch, numbers):
    """Everything that blocks.npz has, computed by our modules."""
    expected = numbers("blocks")
    config = model.config
    net = RecurrentNetwork(config).bind(model.variables)
    first = batch(0)
    rows = act.puzzle_rows(model.variables, first["puzzle_identifiers"])
    x = net.embed(first["inputs"], rows)
    block_in = jnp.asarray(expected["block_in"])
    weights = model.variables["params"]["L_level"]["layers_0"]

    def swiglu(name, x):
        layer = FeedForward("fused_swiglu", weights[name]["down_proj"]["kernel"].shape[0])
        return layer.apply({"params": weights[name]}, x)

    constants = model.variables["constants"]
    z_H = jnp.broadcast_to(constants["H_init"], x.shape)
    z_L = net.update_L(z_H, jnp.broadcast_to(constants["L_init"], x.shape), x)
    ours = {
        "input_embeddings": x,
        "block_in": constants["L_init"] + (constants["H_init"] + x),
        "mlp_out": swiglu("mlp", block_in),
        "rms_norm": rms_norm(block_in, config.rms_norm_eps),
        "block_out": net.L_level.layers[0](block_in),
        "L_level_out": z_L,
        "H_level_out": net.update_H(z_H, z_L),
    }
    if config.mixing == "attention":
        rotary = cos, sin = rotary_tables(x.shape[1], config.hidden_size // config.num_heads, 1e4)
        attend = Attention(config.hidden_size, config.num_heads, fused=True)
        mixed = attend.apply({"params": weights["self_attn"]}, block_in, rotary)
        ours |= {"cos": cos, "sin": sin, "attn_out": mixed}
    else:
        channels = jnp.swapaxes(block_in, 1, 2)
        mixed = swiglu("mlp_t", channels)
        normed = rms_norm(channels + mixed, config.rms_norm_eps)
        ours |= {"mlp_t_out": jnp.swapaxes(mixed, 1, 2), "mlp_t_norm": jnp.swapaxes(normed, 1, 2)}
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        _close(value, expected[name], PIECE, name)


def _check_carry(carry, expected, step, reference):
    for name in ("steps", "halted"):
        np.testing.assert_array_equal(getattr(carry, name), expected[f"{step}/{name}"], name)
    for name, data in carry.current_data.items():
        np.testing.assert_array_equal(data, expected[f"{step}/current_data/{name}"], name)
    for name in ("z_H", "z_L"):
        _close(getattr(carry, name), expected[f"{step}/{name}"], reference.forward, name)


def _check_outputs(out, expected, step, reference):
    for ours, theirs in (
        (out.logits, "logits"),
        (out.q_halt, "q_halt_logits"),
        (out.q_continue, "q_continue_logits"),
    ):
        _close(ours, expected[f"{step}/{theirs}"], reference.forward, theirs)


@functools.cache
def _segment(config, loss):
    """`segment_loss` of variables and a carry, without exploration."""

    def segment(variables, carry):
        rows = act.puzzle_rows(variables, carry.current_data["puzzle_identifiers"])
        return segment_loss(config, loss, variables, rows, carry, jnp.zeros(4, jnp.int32))

    return jit(segment)


@functools.cache
def _thought(config):
    """What the network gives of variables and a carry."""

    def thought(variables, carry):
        data = carry.current_data
        rows = act.puzzle_rows(variables, data["puzzle_identifiers"])
        return think(config, variables, carry.z_H, carry.z_L, data["inputs"], rows)

    return jit(thought)


def _gradients(model, loss, microbatch_size=0):
    """Gradients of variables and a carry."""
    trainer = ACTTrainer(model.config, PuzzleOptimizerConfig(), loss, 10, microbatch_size)
    shapes = jax.eval_shape(trainer.supervised.init, jax.random.key(0), model.variables["params"])

    def gradients(variables, carry):
        state = shapes.replace(
            step=jnp.int32(0), params=variables["params"], tables=variables["tables"], rows=carry,
            carry=variables["constants"],
        )  # fmt: skip
        batch = {"minimum": jnp.zeros(4, jnp.int32)}
        return trainer.supervised.gradients(state, batch, jax.random.key(0))

    return jit(gradients)


def test_three_carried_evaluation_steps(reference, model, batch, numbers):
    expected = numbers("eval_steps")
    carry = model.initial_carry(batch(0))
    loss = _segment(model.config, "stablemax")
    for k in range(3):
        step = f"step{k}"
        if not isinstance(model.config, HRMConfig):  # HRM's evaluation has no target for q_continue
            before = act.refill(carry, batch(0), model.variables["constants"])
            total, _ = loss(model.variables, before)
            np.testing.assert_allclose(total, expected[f"{step}/loss"], rtol=reference.loss)
        carry, out = model.act_step(carry, batch(0))
        _check_outputs(out, expected, step, reference)
        _check_carry(carry, expected, step, reference)


def _check_training_step(result, outputs, expected, step, template, reference):
    _check_outputs(outputs, expected, step, reference)
    carry = result.carry.rows
    _check_carry(carry, expected, step, reference)
    metrics = result.metrics
    assert ("q_continue_loss" in metrics) == (f"{step}/target_q_continue" in expected)
    for name, key in (("loss", "loss"), *((n, f"metrics/{n}") for n in reference.losses)):
        theirs = expected[f"{step}/{key}"]
        np.testing.assert_allclose(metrics[name][0], theirs, rtol=1e-4, err_msg=name)
        assert metrics[name][1] == 4
    for name in METRICS:
        np.testing.assert_allclose(metrics[name][0], expected[f"{step}/metrics/{name}"], rtol=1e-4)
        assert metrics[name][1] == expected[f"{step}/metrics/count"]
    ours = to_reference({**template, "params": result.params})
    prefix = f"{step}/grad/"
    names = {k.removeprefix(prefix) for k in expected if k.startswith(prefix)} - {EMBEDDINGS}
    assert names == set(ours) - {
        "model.inner.H_init",
        "model.inner.L_init",
        "model.inner.puzzle_emb.weights",
    }
    for name in names:
        _close(ours[name], expected[prefix + name], GRADIENT, name)
    _close(result.tables["puzzle_emb"], expected[prefix + EMBEDDINGS], GRADIENT, EMBEDDINGS)
    np.testing.assert_array_equal(
        carry.current_data["puzzle_identifiers"], expected[f"{step}/local_ids"]
    )


def test_three_carried_training_steps(reference, model, batch, numbers):
    """Weights fixed, exploration off; rows that halted take the next batch."""
    expected = numbers("train_steps")
    for microbatch_size in reference.microbatches:
        gradients = _gradients(model, "stablemax", microbatch_size)
        carry = act.initial_carry(model.config, batch(0))
        for k in range(3):
            carry = act.refill(carry, batch(k), model.variables["constants"])
            result = gradients(model.variables, carry)
            outputs = _thought(model.config)(model.variables, carry)
            _check_training_step(result, outputs, expected, f"step{k}", model.variables, reference)
            carry = result.carry.rows


def test_softmax_training_step(folder, reference, model, batch, numbers):
    if not (folder / "train_steps_softmax.npz").exists():
        pytest.skip("the reference crashes with softmax")
    carry = act.refill(
        act.initial_carry(model.config, batch(0)), batch(0), model.variables["constants"]
    )
    result = _gradients(model, "softmax")(model.variables, carry)
    outputs = _thought(model.config)(model.variables, carry)
    expected = numbers("train_steps_softmax")
    _check_training_step(result, outputs, expected, "step0", model.variables, reference)


def _check_weights(ours, expected, prefix, tolerances):
    theirs = {k.removeprefix(prefix): v for k, v in expected.items() if k.startswith(prefix)}
    assert ours.keys() == theirs.keys(), prefix
    for name, value in theirs.items():
        _close(ours[name], value, tolerances(name), f"{name} of {prefix}")


@pytest.mark.parametrize("form", ["upstream", "a127"])
def test_twenty_training_steps(form, reference, model, batch, folder, numbers):
    if form not in reference.forms:
        pytest.skip("no such trajectory of this reference")
    expected = numbers(f"traj_{form}")
    given = json.loads((folder / "traj_hparams.json").read_text())
    rule = PuzzleOptimizerConfig(
        name="adam_atan2" if form == "upstream" else "adam_atan2_a127",
        learning_rate=given["lr"],
        warmup_steps=given["lr_warmup_steps"],
        lr_min_ratio=given["lr_min_ratio"],
        b1=given["beta1"],
        b2=given["beta2"],
        weight_decay=given["weight_decay"],
        puzzle_emb_lr=given["puzzle_emb_lr"],
        puzzle_emb_weight_decay=given["puzzle_emb_weight_decay"],
        ema=given.get("ema_rate", 0.0),
    )
    config = model.config
    trainer = ACTTrainer(config, rule, "stablemax", given["total_steps"])
    batches = [
        {k.removeprefix("batches/"): jnp.asarray(v[i]) for k, v in expected.items()
         if k.startswith("batches/")}
        for i in range(20)
    ]  # fmt: skip
    key = jax.random.key(0)
    state = trainer.init(key, model.variables, batches[0])
    step = jit(trainer.step)
    read = jit(lambda v, z: RecurrentNetwork(config).apply(v, z, method="halting_values"))
    for i in range(20):
        before = puzzle_weights(state, averaged=False)
        state, metrics = step(state.replace(step=jnp.int32(i)), batches[i], key)
        total, rows = metrics["loss"]
        np.testing.assert_allclose(total / rows, expected["loss"][i], rtol=reference.loss)
        np.testing.assert_allclose(metrics["learning_rate"][0], expected["lr"][i], rtol=1e-6)
        for name in reference.losses:
            np.testing.assert_allclose(
                metrics[name][0], expected[f"metrics/{name}"][i], rtol=1e-4, atol=1e-4
            )
        for name in METRICS:
            np.testing.assert_allclose(metrics[name][0], expected[f"metrics/{name}"][i], rtol=1e-4)
        np.testing.assert_array_equal(state.rows.steps, expected["steps"][i])
        np.testing.assert_array_equal(state.rows.halted, expected["halted"][i])
        q_halt, q_continue = read(before, state.rows.z_H)
        _close(q_halt, expected["q_halt"][i], reference.q_halt, "q_halt")
        _close(q_continue, expected["q_continue"][i], reference.q_halt, "q_continue")
        _close(state.tables["puzzle_emb"], expected["puzzle_emb"][i], reference.table, "puzzle_emb")
        if i + 1 not in (1, 2, 5, 20):
            continue
        live = to_reference(puzzle_weights(state, averaged=False))
        _check_weights(
            live,
            expected,
            f"params_after{i + 1}/",
            lambda name: reference.table if "puzzle_emb" in name else reference.params,
        )
        if state.ema:
            averaged = to_reference({"params": state.ema})
            _check_weights(averaged, expected, f"ema_after{i + 1}/", lambda name: EMA)
    if state.ema:  # the reference averages parameters only, and evaluates with the live table
        weights = puzzle_weights(state, averaged=False) | {"params": state.ema}
        carry = act.refill(act.initial_carry(config, batch(0)), batch(0), weights["constants"])
        loss, _ = _segment(config, "stablemax")(weights, carry)
        out = _thought(config)(weights, carry)
        _close(out.logits, expected["ema_eval/logits"], reference.forward, "logits")
        _close(out.q_halt, expected["ema_eval/q_halt_logits"], reference.forward, "q_halt")
        np.testing.assert_allclose(loss, expected["ema_eval/loss"], rtol=reference.loss)


def test_names_are_inverse(model):
    again = from_reference(to_reference(model.variables), model.config)
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(model.variables))
