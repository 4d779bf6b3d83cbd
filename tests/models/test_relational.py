"""The relational network: what it computes, by hand, and that the order of objects is nothing to
it; the MLP of as many parameters."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.models.relational import MLPConfig, RelationalConfig, init, mlp_width, network

SMALL = RelationalConfig(
    object_dim=5, question_dim=4, output_dim=3, relation_dim=7, hidden_dim=6, g_layers=2
)


def _shapes(config, shape):
    return jax.eval_shape(functools.partial(init, config, shape=shape), jax.random.key(0))


def _given(config, shape=(4, 5)):
    """Parameters, inputs and questions, all of them random."""
    random = np.random.default_rng(0)

    def draw(*size):
        return jnp.asarray(random.normal(0, 0.5, size), jnp.float32)

    params = jax.tree.map(lambda x: draw(*x.shape), _shapes(config, shape))
    return params, draw(2, *shape), draw(2, 3, config.question_dim)


def _layers(params, x, last_relu):
    """Dense layers in NumPy."""
    for i in range(len(params)):
        layer = params[f"layers_{i}"]
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        x = np.maximum(x, 0) if last_relu or i + 1 < len(params) else x
    return x


@pytest.mark.parametrize(
    ("pairs", "aggregate", "object_layers"),
    [("distinct", "mean", 0), ("distinct", "sum", 2), ("all", "mean", 0), ("all", "sum", 0)],
)
def test_it_is_the_papers_formula(pairs, aggregate, object_layers):
    config = dataclasses.replace(
        SMALL, pairs=pairs, aggregate=aggregate, object_layers=object_layers, f_layers=2
    )
    params, inputs, asked = _given(config)
    found = network(config).apply({"params": params}, inputs, asked)
    assert found.shape == (2, 3, 3)
    assert found.dtype == jnp.float32
    for world, question in itertools.product(range(2), range(3)):
        objects, q = np.asarray(inputs[world]), np.asarray(asked[world, question])
        if object_layers:
            for i in range(object_layers):
                layer = {"layers_0": params["objects"][f"layers_{i}"]}
                rows = [np.concatenate([o, q]) for o in objects]
                objects = np.stack([_layers(layer, row, True) for row in rows])
        chosen = [
            (i, j) for i in range(4) for j in range(4) if i != j or pairs == "all"
        ]  # fmt: skip
        assert len(chosen) == (12 if pairs == "distinct" else 16)
        relations = [
            _layers(params["g"], np.concatenate([objects[i], objects[j], q]), True)
            for i, j in chosen
        ]
        related = np.sum(relations, axis=0) / (len(chosen) if aggregate == "mean" else 1)
        wanted = _layers(params["f"], related, False)
        np.testing.assert_allclose(found[world, question], wanted, rtol=1e-4, atol=1e-5)


def test_the_order_of_objects_is_nothing_to_it_and_much_to_the_mlp():
    for config in (SMALL, MLPConfig(**dataclasses.asdict(SMALL))):
        params, inputs, asked = _given(config)
        apply = network(config).apply
        before = apply({"params": params}, inputs, asked)
        after = apply({"params": params}, inputs[:, jnp.array([2, 0, 3, 1])], asked)
        assert np.allclose(before, after, atol=1e-5) == (config is SMALL)


def test_both_orders_of_a_pair_are_seen():
    params, inputs, asked = _given(SMALL, (2, 5))
    left, right, question = jnp.split(params["g"]["layers_0"]["kernel"], (5, 10))
    first = {**params["g"]["layers_0"], "kernel": jnp.concatenate([right, left, question])}
    swapped = {**params, "g": {**params["g"], "layers_0": first}}
    found = [network(SMALL).apply({"params": x}, inputs, asked) for x in (params, swapped)]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_the_seeds_sizes_and_no_question():
    config = RelationalConfig()
    params = _shapes(config, (6, 256))
    inputs = jax.ShapeDtypeStruct((2, 6, 256), jnp.float32)
    assert jax.eval_shape(network(config).apply, {"params": params}, inputs).shape == (2, 10)
    shapes = {name: x["kernel"].shape for name, x in params["g"].items()}
    assert shapes == {"layers_0": (512, 256), "layers_1": (256, 256), "layers_2": (256, 256)}
    assert {name: x["kernel"].shape for name, x in params["f"].items()} == {
        "layers_0": (256, 256),
        "layers_1": (256, 10),
    }


def test_images_become_cells_that_know_where_they_are():
    config = dataclasses.replace(SMALL, channels=(3, 4))
    params, _, asked = _given(config, (9, 12, 3))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 9, 12, 3), np.uint8))
    found, seen = network(config).apply(
        {"params": params},
        images,
        asked,
        capture_intermediates=lambda module, _: module.name == "cells",
    )
    assert found.shape == (2, 3, 3)
    (cells,) = seen["intermediates"]["cells"]["__call__"]
    assert cells.shape == (2, 3 * 3, 4 + 2)
    np.testing.assert_allclose(cells[0, :, 4], np.tile([-1, 0, 1], 3), atol=1e-6)
    np.testing.assert_allclose(cells[0, :, 5], np.repeat([-1, 0, 1], 3), atol=1e-6)
    mirrored = network(config).apply({"params": params}, images[:, :, ::-1], asked)
    assert not np.allclose(found, mirrored)


@pytest.mark.parametrize("layers", [1, 4])
def test_the_mlp_has_as_many_parameters(layers):
    config = RelationalConfig(object_dim=10, question_dim=11, hidden_dim=32, relation_dim=24)
    control = MLPConfig(**dataclasses.asdict(config), mlp_layers=layers)
    one, two = (
        sum(x.size for x in jax.tree.leaves(_shapes(c, (6, 10)))) for c in (config, control)
    )
    assert one <= two < 1.1 * one
    params = _shapes(control, (6, 10))
    width = mlp_width(control, 6, 10)
    assert params["f"]["layers_0"]["kernel"].shape == (71, width)
    assert len(params["f"]) == layers + 1


def test_inputs_of_other_shapes_are_named():
    params, inputs, asked = _given(SMALL)
    apply = network(SMALL).apply
    with pytest.raises(ValueError, match=r"inputs: expected the shape \(-1, -1, 5\).*\(2, 4, 4\)"):
        apply({"params": params}, inputs[..., :4], asked)
    with pytest.raises(ValueError, match=r"questions: expected the shape \(2, -1, 4\).*got \(\)"):
        apply({"params": params}, inputs)
    with pytest.raises(ConfigError, match=r"model.g_layers: expected at least 1, got 0"):
        RelationalConfig(g_layers=0)
    with pytest.raises(ConfigError, match=r"model.mlp_layers: expected at least 1, got 0"):
        MLPConfig(mlp_layers=0)
