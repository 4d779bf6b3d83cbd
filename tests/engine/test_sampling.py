"""The choice of tokens against plain numpy and against the processors of transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.engine.sampling import Choice, Sampling, choose, kept, penalised

VOCABULARY = 40


def _choice(*samplings):
    return jax.tree.map(lambda *x: jnp.stack(x), *map(Choice.of, samplings))


def _logits(rows, seed=0):
    return np.random.default_rng(seed).normal(0, 3, (rows, VOCABULARY)).astype(np.float32)


def _kept_plainly(logits, top_k, top_p, min_p):
    """By sorting, one token after the other."""
    order = np.argsort(-logits, kind="stable")
    if top_k:
        order = order[:top_k]
    weights = np.exp(logits[order].astype(np.float64) - logits.max())
    weights /= weights.sum()
    total, nucleus = 0.0, []
    for token, weight in zip(order, weights, strict=True):
        nucleus.append(token)
        total += weight
        if total >= top_p:
            break
    if top_p < 1:
        order, weights = order[: len(nucleus)], weights[: len(nucleus)]
    order = order[weights >= min_p * weights[0]]
    return np.isin(np.arange(len(logits)), order)


CUTS = [
    (0, 1.0, 0.0),
    (1, 1.0, 0.0),
    (5, 1.0, 0.0),
    (100, 1.0, 0.0),
    (0, 0.0, 0.0),
    (0, 0.3, 0.0),
    (0, 0.9, 0.0),
    (0, 1.0, 0.1),
    (0, 1.0, 1.0),
    (7, 0.8, 0.05),
]


def test_cuts_are_those_of_a_plain_loop_and_differ_by_row():
    logits = _logits(len(CUTS))
    top_k, top_p, min_p = (jnp.asarray(x) for x in zip(*CUTS, strict=True))
    found = kept(jnp.asarray(logits), top_k, top_p.astype(jnp.float32), min_p.astype(jnp.float32))
    for row, cut, ours in zip(logits, CUTS, np.asarray(found), strict=True):
        np.testing.assert_array_equal(ours, _kept_plainly(row, *cut), err_msg=str(cut))


def test_the_token_that_crosses_p_stays():
    logits = jnp.log(jnp.asarray([[0.5, 0.3, 0.15, 0.05]]))
    for p, count in ((0.4, 1), (0.6, 2), (0.85, 3), (0.96, 4)):
        found = kept(logits, jnp.zeros(1, int), jnp.full(1, p), jnp.zeros(1))
        assert np.asarray(found).sum() == count, p


@pytest.mark.parametrize("cut", CUTS[1:])
def test_cuts_are_those_of_transformers(cut):
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    top_k, top_p, min_p = cut
    warpers = []
    if top_k:
        warpers.append(process.TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(process.TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(process.MinPLogitsWarper(min_p))
    logits = _logits(16, seed=1)
    scores = torch.from_numpy(logits)
    for warper in warpers:
        scores = warper(None, scores)
    rows = len(logits)
    found = kept(
        jnp.asarray(logits), jnp.full(rows, top_k), jnp.full(rows, top_p), jnp.full(rows, min_p)
    )
    np.testing.assert_array_equal(np.asarray(found), torch.isfinite(scores).numpy())


def test_the_penalty_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    logits, used = _logits(3, seed=2), np.array([[1, 5, 5], [0, 2, 39], [7, 7, 7]])
    expected = process.RepetitionPenaltyLogitsProcessor(1.7)(
        torch.from_numpy(used), torch.from_numpy(logits)
    )
    seen = np.stack([np.isin(np.arange(VOCABULARY), row) for row in used])
    found = penalised(jnp.asarray(logits), jnp.asarray(seen), jnp.full(3, 1.7))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _draws(sampling, logits, suppressed=(), count=4000):
    """How often each token is drawn, at as many positions."""
    choice = jax.tree.map(lambda x: jnp.repeat(x, count, 0), _choice(sampling))
    tokens = jax.jit(choose)(
        jnp.tile(jnp.asarray(logits), (count, 1)),
        jnp.zeros((count, len(logits)), bool),
        jnp.asarray(np.isin(np.arange(len(logits)), suppressed)),
        choice,
        jnp.arange(count),
    )
    return np.bincount(np.asarray(tokens), minlength=len(logits)) / count


def test_draws_follow_the_tempered_distribution():
    logits = np.array([1.0, 0.0, -1.0, 2.0], np.float32)
    for temperature in (0.5, 1.0, 2.0):
        expected = np.exp(logits / temperature)
        found = _draws(Sampling(temperature=temperature, seed=3), logits)
        np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)


def test_suppressed_tokens_never_come_and_leave_their_share_to_others():
    logits = np.array([5.0, 0.0, 0.0, -2.0], np.float32)
    found = _draws(Sampling(seed=3, top_p=0.9), logits, suppressed=(0,))
    assert found[0] == found[3] == 0
    np.testing.assert_allclose(found[1:3], 0.5, atol=0.03)
    assert _draws(Sampling(temperature=0), logits, suppressed=(0,))[1] == 1


def test_a_row_draws_the_same_whoever_else_is_there():
    mixed = [
        Sampling(seed=1, temperature=0.7, top_k=5),
        Sampling(temperature=0),
        Sampling(seed=2, top_p=0.8, repetition_penalty=1.3),
        Sampling(seed=-5, min_p=0.1),
        Sampling(seed=2**70 + 1),
    ]
    logits, seen = _logits(5, seed=4), np.random.default_rng(5).random((5, VOCABULARY)) < 0.3
    suppressed, positions = jnp.zeros(VOCABULARY, bool), jnp.arange(5) * 11
    run = jax.jit(choose)
    together = run(logits, seen, suppressed, _choice(*mixed), positions)
    for row, sampling in enumerate(mixed):
        one = slice(row, row + 1)
        alone = run(logits[one], seen[one], suppressed, _choice(sampling), positions[one])
        assert alone[0] == together[row]
    order = np.array([3, 0, 4, 1, 2])
    turned = run(
        logits[order], seen[order], suppressed, _choice(*(mixed[i] for i in order)),
        positions[order],
    )  # fmt: skip
    np.testing.assert_array_equal(turned, np.asarray(together)[order])


def test_draws_differ_by_seed_and_by_position():
    logits = np.zeros((1, VOCABULARY), np.float32)

    def drawn(seed, position):
        return int(
            jax.jit(choose)(
                jnp.asarray(logits), jnp.zeros((1, VOCABULARY), bool), jnp.zeros(VOCABULARY, bool),
                _choice(Sampling(seed=seed)), jnp.asarray([position]),
            )[0]
        )  # fmt: skip

    assert len({drawn(seed, 3) for seed in range(20)}) > 10
    assert len({drawn(3, position) for position in range(20)}) > 10
    assert drawn(2**40, 0) != drawn(0, 0) or drawn(2**40, 1) != drawn(0, 1)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_new_tokens", 0, "at least 1"),
        ("max_new_tokens", 1.5, "a whole number"),
        ("temperature", -0.1, "at least 0"),
        ("temperature", float("nan"), "a finite number"),
        ("temperature", "hot", "a finite number"),
        ("top_k", -1, "at least 0"),
        ("top_p", 1.1, "0 <= x <= 1"),
        ("min_p", -0.1, "0 <= x <= 1"),
        ("repetition_penalty", 0.0, "more than 0"),
        ("stop", ("",), "texts that are not empty"),
        ("stop", "word", "texts that are not empty"),
        ("stop_tokens", ("a",), "whole numbers"),
        ("logprobs", 21, "-1 <= x <= 20"),
        ("seed", True, "a whole number"),
    ],
)
def test_bad_values_are_named(field, value, expected):
    with pytest.raises(ValueError, match=f"{field}: expected {expected}, got"):
        dataclasses.replace(Sampling(), **{field: value})
