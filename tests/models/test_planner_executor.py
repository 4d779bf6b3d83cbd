"""The planner–executor: the original's size, no look ahead, a plan that is read."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.models.language import init, network
from hrm_jax.models.planner_executor import (
    Planner,
    PlannerExecutorConfig,
    prompt_of,
    text_before,
    weave,
)

SMALL = PlannerExecutorConfig(
    hidden_size=32,
    num_heads=2,
    ffn_size=48,
    planner_layers=1,
    executor_layers=2,
    planner_length=8,
    max_length=16,
    plan_size=12,
    num_plans=2,
    num_codes=6,
    dropout=0.0,
    init_std=0.2,
)


TOKENS = jax.random.randint(jax.random.key(0), (3, 12), 0, 256)
SPLIT = jnp.array([4, 12, 7])


@functools.cache
def draw(config: PlannerExecutorConfig) -> dict:
    return jax.jit(functools.partial(init, config))(jax.random.key(1))


@functools.cache
def compiled(config: PlannerExecutorConfig, method: str = "__call__") -> Any:
    return jax.jit(
        lambda params, *args: network(config).apply({"params": params}, *args, method=method)
    )


def test_the_original_has_as_many_parameters() -> None:
    config = PlannerExecutorConfig(scan_layers=True)  # one layer to trace
    shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))

    def count(tree: object) -> int:
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))

    assert count(shapes["planner"]) == 8_925_952
    assert count(shapes) == 43_149_568


def test_weave_puts_the_plan_in_place() -> None:
    woven = weave(jnp.arange(8).reshape(2, 4), jnp.array([1, 4]), 2, -1)
    assert woven.tolist() == [[0, -1, -1, 1, 2, 3], [4, 5, 6, 7, -1, -1]]


def test_the_planner_reads_the_last_tokens_before_the_split() -> None:
    prompt, lengths = prompt_of(jnp.arange(8).reshape(2, 4), jnp.array([2, 4]), 3, 99)
    assert prompt.tolist() == [[0, 1, 99], [5, 6, 7]]
    assert lengths.tolist() == [2, 3]


def test_the_text_before_begins_behind_the_last_end() -> None:
    tokens, least = jnp.array([[1, 2, 3, 4], [1, 9, 3, 8], [1, 9, 3, 4]]), jnp.array([1, 0, 4])
    text, counts = text_before(tokens, 9, least, 0)
    assert text.tolist() == [[2, 3, 4, 0], [3, 8, 0, 0], [0, 0, 0, 0]]
    assert counts.tolist() == [3, 2, 1]
    text, counts = text_before(tokens, 9, jnp.zeros(3, int), 0)
    assert text.tolist() == [[1, 2, 3, 4], [3, 8, 0, 0], [3, 4, 0, 0]]
    assert counts.tolist() == [4, 2, 2]


def test_each_plan_vector_is_of_a_part_of_the_text() -> None:
    config = dataclasses.replace(SMALL, pooling="parts", num_codes=0)
    encoder, project = draw(config)["planner"]["encoder"], draw(config)["planner"]["project"]
    lengths = jnp.array([8, 5, 1])
    plan = jax.jit(lambda *args: Planner(config).apply({"params": draw(config)["planner"]}, *args))
    found = plan(TOKENS[:, :8], lengths).vectors
    hidden, _ = network(config.planner).apply(
        {"params": encoder}, TOKENS[:, :8], lengths=lengths, method="hidden"
    )
    for row, parts in enumerate([((0, 4), (4, 8)), ((0, 2), (2, 5)), ((0, 1), (0, 1))]):
        for number, part in enumerate(parts):
            mean = hidden[row, slice(*part)].mean(0)
            expected = mean @ project["kernel"] + project["bias"]
            np.testing.assert_allclose(found[row, number], expected, atol=1e-5)


def test_a_text_shorter_than_the_plan_has_a_gradient() -> None:
    config = dataclasses.replace(SMALL, pooling="parts", num_plans=3)

    @jax.jit
    @jax.grad
    def gradient(params: dict) -> jax.Array:
        plan = Planner(config).apply({"params": params}, TOKENS[:, :8], jnp.array([8, 2, 1]))
        return jnp.sum(plan.vectors**2)

    for leaf in jax.tree.leaves(gradient(draw(config)["planner"])):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("codes", [0, 6])
def test_nothing_before_a_token_depends_on_it(codes: int) -> None:
    config = dataclasses.replace(SMALL, num_codes=codes)
    apply, params = compiled(config), draw(config)
    before, _ = apply(params, TOKENS, SPLIT)
    for at in (2, 5, 11):
        after, _ = apply(params, TOKENS.at[:, at].add(1) % 256, SPLIT)
        for row, place in enumerate(SPLIT.tolist()):
            same = at + (2 if at >= place else 0)  # the plan is made of what is before it
            np.testing.assert_array_equal(before[row, :same], after[row, :same])


def test_the_plan_changes_what_follows_only() -> None:
    execute, params = compiled(SMALL, "execute"), draw(SMALL)
    vectors = compiled(SMALL, "plan")(params, TOKENS, SPLIT).vectors
    shown, nobody = jnp.ones(3, bool), jnp.zeros(3, bool)
    one = execute(params, TOKENS, SPLIT, vectors, shown)
    for other in (vectors + 1, shown), (vectors, nobody):
        difference = np.abs(one - execute(params, TOKENS, SPLIT, *other)).max(axis=-1)
        for row, place in enumerate(SPLIT.tolist()):
            assert (difference[row, :place] == 0).all()
            assert (difference[row, place:] > 0).all()


def test_padding_does_not_change_the_plan() -> None:
    params = {"params": draw(SMALL)["planner"]}
    module = jax.jit(lambda *args: Planner(SMALL).apply(params, *args))
    lengths = jnp.array([5, 8, 5])
    long = module(TOKENS[:, :8], lengths)
    other = module(TOKENS[:, :8].at[0, 5:].add(1) % 256, lengths)
    np.testing.assert_allclose(long.logits, other.logits, atol=1e-4)
    short = module(TOKENS[:, :5], jnp.full(3, 5))
    np.testing.assert_allclose(long.logits[::2], short.logits[::2], atol=1e-4)


def test_codes_are_chosen_without_noise_unless_asked() -> None:
    plan, params = compiled(SMALL, "plan"), draw(SMALL)
    chosen = plan(params, TOKENS, SPLIT)
    codes = params["planner"]["codebook"][chosen.logits.argmax(-1)]
    np.testing.assert_allclose(chosen.vectors, codes, atol=1e-5)
    noisy = [plan(params, TOKENS, SPLIT, jax.random.key(seed)).vectors for seed in range(8)]
    assert np.std(noisy, axis=0).max() > 0.1


def test_the_gradient_reaches_the_planner_through_the_choice() -> None:
    @jax.jit
    @jax.grad
    def gradient(params: dict) -> jax.Array:
        variables, args = {"params": params}, (TOKENS, SPLIT, jax.random.key(2), 0.5)
        logits, _ = network(SMALL).apply(variables, *args)
        return jnp.mean(logits[:, -1] ** 2)

    grads = gradient(draw(SMALL))["planner"]
    for name in ("codebook", "project"):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[name])) > 0


def test_an_executor_that_does_not_see_the_prompt_knows_it_from_the_plan_alone() -> None:
    config = dataclasses.replace(SMALL, executor_sees_prompt=False)
    execute, params, vectors = compiled(config, "execute"), draw(config), jnp.ones((3, 2, 12))
    one = execute(params, TOKENS, SPLIT, vectors)
    other = execute(params, TOKENS.at[:, 1].add(1) % 256, SPLIT, vectors)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_plans": 0}, "num_plans"),
        ({"num_codes": 1}, "num_codes"),
        ({"num_plans": 9, "pooling": "parts"}, "num_plans"),
    ],
)
def test_impossible_sizes_are_named(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{named}"):
        dataclasses.replace(SMALL, **change)
