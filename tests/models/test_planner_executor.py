"""The planner–executor: the original's size, no look ahead, a plan that is read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.fields import ConfigError
from hrm_jax.models.planner_executor import (
    PlannerExecutor,
    PlannerExecutorConfig,
    prompt_of,
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


def build(config: PlannerExecutorConfig) -> tuple[PlannerExecutor, dict, jax.Array, jax.Array]:
    tokens = jax.random.randint(jax.random.key(0), (3, 12), 0, 256)
    split = jnp.array([4, 12, 7])
    model = PlannerExecutor(config)
    return model, model.init(jax.random.key(1), tokens, split), tokens, split


def test_the_original_has_as_many_parameters() -> None:
    model = PlannerExecutor(PlannerExecutorConfig())
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, 4), int), jnp.ones(1, int)
    )["params"]

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


@pytest.mark.parametrize("codes", [0, 6])
def test_nothing_before_a_token_depends_on_it(codes: int) -> None:
    model, variables, tokens, split = build(dataclasses.replace(SMALL, num_codes=codes))
    before, _ = model.apply(variables, tokens, split)
    for at in (2, 5, 11):
        after, _ = model.apply(variables, tokens.at[:, at].add(1) % 256, split)
        for row, place in enumerate(split.tolist()):
            same = at + (2 if at >= place else 0)  # the plan is made of what is before it
            np.testing.assert_array_equal(before[row, :same], after[row, :same])


def test_the_plan_changes_what_follows_only() -> None:
    model, variables, tokens, split = build(SMALL)
    plan = model.apply(variables, tokens, split, method="plan")
    one = model.apply(variables, tokens, split, plan.vectors, method="execute")
    other = model.apply(variables, tokens, split, plan.vectors + 1, method="execute")
    none = model.apply(variables, tokens, split, plan.vectors, jnp.zeros(3, bool), method="execute")
    for changed in (other, none):
        difference = np.abs(one - changed).max(axis=-1)
        for row, place in enumerate(split.tolist()):
            assert (difference[row, :place] == 0).all()
            assert (difference[row, place:] > 0).all()


def test_padding_does_not_change_the_plan() -> None:
    model, variables, tokens, _ = build(SMALL)
    module = model.bind(variables).planner
    long = module(tokens[:, :8], jnp.array([5, 8, 3]))
    for row, length in enumerate((5, 8, 3)):
        short = module(tokens[row : row + 1, :length], jnp.array([length]))
        np.testing.assert_allclose(long.logits[row], short.logits[0], atol=1e-4)


def test_codes_are_chosen_without_noise_unless_asked() -> None:
    model, variables, tokens, split = build(SMALL)
    codebook = variables["params"]["planner"]["codebook"]
    plan = model.apply(variables, tokens, split, method="plan")
    np.testing.assert_allclose(plan.vectors, codebook[plan.logits.argmax(-1)], atol=1e-5)
    noisy = [
        model.apply(variables, tokens, split, jax.random.key(seed), method="plan").vectors
        for seed in range(8)
    ]
    assert np.std(noisy, axis=0).max() > 0.1


def test_the_gradient_reaches_the_planner_through_the_choice() -> None:
    model, variables, tokens, split = build(SMALL)

    def loss(params: dict) -> jax.Array:
        logits, _ = model.apply({"params": params}, tokens, split, jax.random.key(2), 0.5)
        return jnp.mean(logits[:, -1] ** 2)

    grads = jax.grad(loss)(variables["params"])["planner"]
    for name in ("codebook", "project"):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[name])) > 0


def test_an_executor_that_does_not_see_the_prompt_knows_it_from_the_plan_alone() -> None:
    model, variables, tokens, split = build(dataclasses.replace(SMALL, executor_sees_prompt=False))
    plan = model.apply(variables, tokens, split, method="plan")
    one = model.apply(variables, tokens, split, plan.vectors, method="execute")
    other = model.apply(
        variables, tokens.at[:, 1].add(1) % 256, split, plan.vectors, method="execute"
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "named"), [({"num_plans": 0}, "num_plans"), ({"num_codes": 1}, "num_codes")]
)
def test_impossible_sizes_are_named(change: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{named}"):
        dataclasses.replace(SMALL, **change)
