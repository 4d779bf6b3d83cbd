"""Keras itself loads what we export, and predicts the same."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "jax"  # read when keras is imported

import keras
from keras import layers, ops

from hrm_jax.interop.export import export
from hrm_jax.interop.language import export_language_model, parameter_shapes
from hrm_jax.models import act, recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.transformer import Transformer, TransformerConfig, sinusoidal_positions
from hrm_jax.models.trm import TRMConfig

_SIZES: Any = {
    "seq_len": 5, "vocab_size": 7, "hidden_size": 8, "num_heads": 2, "expansion": 1.0,
    "num_puzzle_identifiers": 3, "puzzle_emb_ndim": 12, "forward_dtype": "float32",
}  # fmt: skip
PUZZLES = {
    "HRM": HRMConfig(**_SIZES, H_layers=1, L_layers=2, pos_encodings="learned"),
    "TRM": TRMConfig(**_SIZES, puzzle_emb_len=3, mlp_t=True, pos_encodings="none"),
}
RLM = TransformerConfig(
    vocab_size=260, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_length=6
)


class Block(layers.Layer):
    """Keras names the items of a list by their class."""


def _built(layer: layers.Layer, size: int) -> layers.Layer:
    layer.build((None, size))
    return layer


def _mirror(tree: Any, layer: layers.Layer | None = None) -> layers.Layer:
    """Keras' own layers in the places of ours, with weights that are still to be loaded."""
    if "kernel" in tree:
        size, features = tree["kernel"].shape
        return _built(layers.Dense(features, use_bias="bias" in tree), size)
    if "embedding" in tree:
        return _built(layers.Embedding(*tree["embedding"].shape), 1)
    if "scale" in tree:
        return _built(layers.LayerNormalization(epsilon=RLM.norm_eps), len(tree["scale"]))
    layer = layer or layers.Layer()
    for name, part in tree.items():
        if not isinstance(part, dict):
            setattr(layer, name, layer.add_weight(shape=part.shape, name=name))
        elif not name.startswith("layers_"):
            setattr(layer, name, _mirror(part))
    count = sum(name.startswith("layers_") for name in tree)
    if count:
        layer.layers = [_mirror(tree[f"layers_{i}"], Block()) for i in range(count)]
    layer.built = True
    return layer


class Model(keras.Model):
    def __init__(self, name: str, tree: Any, function: Any) -> None:
        super().__init__()
        setattr(self, name, _mirror(tree))
        self.call = functools.partial(function, getattr(self, name))  # type: ignore[method-assign]
        self.built = True


def _draw(shapes: Any) -> Any:
    rng = np.random.default_rng(0)

    def leaf(x: Any) -> np.ndarray:
        return (rng.standard_normal(x.shape) / np.sqrt(x.shape[0])).astype(np.float32)

    return jax.tree.map(leaf, shapes)


def _attend(q: Any, k: Any, v: Any, heads: int, causal: bool) -> Any:
    q, k, v = (ops.reshape(x, (*x.shape[:2], heads, -1)) for x in (q, k, v))
    scores = ops.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
    seen = np.tril(np.ones(scores.shape[-2:], bool)) | (not causal)
    weights = ops.softmax(ops.where(seen, scores, -1e9))
    mixed = ops.einsum("bhqk,bkhc->bqhc", weights, v)
    return ops.reshape(mixed, (*mixed.shape[:2], -1))


def _think(config: Any, net: Any, puzzles: Any) -> Any:
    """The first ACT step of a puzzle: logits, and both halting values."""

    def rms(x: Any) -> Any:
        return x / ops.sqrt(ops.mean(x**2, axis=-1, keepdims=True) + config.rms_norm_eps)

    def swiglu(layer: Any, x: Any) -> Any:
        gate, up = ops.split(layer.gate_up_proj(x), 2, axis=-1)
        return layer.down_proj(ops.silu(gate) * up)

    def run(level: Any, z: Any, injection: Any) -> Any:
        x = z + injection
        for block in level.layers:
            if config.mixing == "positions":
                columns = ops.swapaxes(x, 1, 2)
                x = ops.swapaxes(rms(columns + swiglu(block.mlp_t, columns)), 1, 2)
            else:
                qkv = ops.split(block.self_attn.qkv_proj(x), 3, axis=-1)
                mixed = _attend(*qkv, config.num_heads, causal=False)
                x = rms(x + block.self_attn.o_proj(mixed))
            x = rms(x + swiglu(block.mlp, x))
        return x

    prefix, size = config.prefix_len, config.hidden_size
    rows = net.puzzle_emb(puzzles["puzzle_identifiers"])
    rows = ops.pad(rows, ((0, 0), (0, prefix * size - config.puzzle_emb_ndim)))
    rows = ops.reshape(rows, (-1, prefix, size))
    x = ops.concatenate([rows, net.embed_tokens(puzzles["inputs"])], axis=1)
    if config.pos_encodings == "learned":
        x = 0.5**0.5 * (x + net.embed_pos.embeddings)
    x = x * size**0.5
    z_H, z_L = (ops.broadcast_to(z, x.shape) for z in (net.H_init, net.L_init))
    for _ in range(config.H_cycles):
        for _ in range(config.L_cycles):
            z_L = run(net.L_level, z_L, z_H + x)
        z_H = run(net.H_level if config.H_depth else net.L_level, z_H, z_L)
    return net.lm_head(z_H[:, prefix:]), net.q_head(z_H[:, 0])


@pytest.mark.parametrize("name", PUZZLES)
def test_a_puzzle_model(name, tmp_path):
    config = PUZZLES[name]
    shapes = jax.eval_shape(functools.partial(recurrent.init, config), jax.random.key(0))
    variables = _draw(shapes)
    export(config, variables, tmp_path / "m.weights.h5", "keras")
    table = {"puzzle_emb": {"embedding": variables["tables"]["puzzle_emb"]}}
    tree = {**variables["constants"], **variables["params"], **table}
    model = Model("hrm", tree, functools.partial(_think, config))
    model.load_weights(tmp_path / "m.weights.h5")
    puzzles = {
        "inputs": np.random.default_rng(1).integers(1, 7, (4, 5), np.int32),
        "puzzle_identifiers": np.array([0, 1, 2, 1], np.int32),
    }
    logits, q = model.predict(puzzles, verbose=0)
    carry = act.initial_carry(config, puzzles)
    _, ours = jax.jit(functools.partial(act.act_step, config))(variables, carry, puzzles)
    assert np.ptp(logits) > 1
    np.testing.assert_allclose(logits, ours.logits, atol=1e-4)
    np.testing.assert_allclose(q.T, (ours.q_halt, ours.q_continue), atol=1e-4)


def _write(net: Any, tokens: Any) -> Any:
    """Logits of the Transformer RLM."""
    x = net.embed_tokens(tokens) + sinusoidal_positions(tokens.shape[1], RLM.hidden_size)
    for block in net.layers:
        y, a = block.attention_norm(x), block.attention
        x = x + a.o_proj(_attend(a.q_proj(y), a.k_proj(y), a.v_proj(y), RLM.num_heads, causal=True))
        x = x + block.ffn.down_proj(ops.relu(block.ffn.up_proj(block.ffn_norm(x))))
    return net.lm_head(net.final_norm(x))


@pytest.mark.parametrize("scan", [False, True])
def test_a_language_model(scan, tmp_path):
    params = _draw(parameter_shapes(RLM))
    config = dataclasses.replace(RLM, scan_layers=scan)
    written = _draw(parameter_shapes(config)) if scan else params
    export_language_model(config, written, tmp_path / "m.weights.h5", "keras")
    model = Model("transformer", params, _write)
    model.load_weights(tmp_path / "m.weights.h5")
    tokens = np.random.default_rng(1).integers(0, RLM.vocab_size, (2, 6)).astype(np.int32)
    theirs = model.predict(tokens, verbose=0)
    ours = jax.jit(Transformer(config).apply)({"params": written}, jnp.asarray(tokens))
    assert np.ptp(theirs) > 1
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
