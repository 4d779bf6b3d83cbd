"""A memory that is read from the past alone, and the terms of Φ."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models import infinito, language
from hrm_jax.models.infinito import Memory, MemoryConfig, PhiConfig
from hrm_jax.models.phi_nets import PhiNets, _pooling, causal_attention
from hrm_jax.models.transformer import Transformer, TransformerConfig
from hrm_jax.tasks.infinito.network import Network, repetition

SIZES = TransformerConfig(
    hidden_size=32, num_layers=3, num_heads=2, ffn_size=64, max_length=64, positions="learned",
    feed_forward="gelu", tie_head=True, dropout=0.0, init_std=0.3,
)  # fmt: skip
MEMORY = MemoryConfig(slots=6, top_k=3, layer=2, parts=2, threshold=0.05)
NETWORK = Network(SIZES, LoraConfig(r=2, dropout=0.0), MEMORY, PhiConfig(dimensions=4), 32)


@pytest.fixture(scope="module")
def base():
    return language.init(SIZES, jax.random.key(0))


@pytest.fixture(scope="module")
def trained(base):
    """Adapters and a reader of the memory that do something."""
    fresh = NETWORK.init(base, jax.random.key(1))
    noise = jax.random.key(2)
    moved = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(noise, x.shape), fresh)
    moved["recall"]["gate"]["bias"] = jnp.ones(1)
    return moved


def _tokens(rows=2, seed=0):
    return jax.random.randint(jax.random.key(seed), (rows, 32), 0, 256)


@pytest.fixture(scope="module")
def full(base, trained):
    """A memory after some segments."""
    variables, memory = NETWORK.variables(base, trained), NETWORK.empty(2)
    for seed in range(3):
        memory = NETWORK.remember(memory, NETWORK.read(variables, _tokens(seed=seed + 5), memory))
    assert (memory.use == 1).all()
    return memory


def test_a_later_token_changes_nothing_before_it(base, trained, full):
    variables, tokens = NETWORK.variables(base, trained), _tokens()
    before = NETWORK.read(variables, tokens, full)
    after = NETWORK.read(variables, tokens.at[:, 20].add(1), full)
    np.testing.assert_array_equal(before.logits[:, :20], after.logits[:, :20])
    assert (before.logits[:, 20:] != after.logits[:, 20:]).any(axis=-1).all()


def test_the_memory_is_read_and_each_row_reads_its_own(base, trained, full):
    variables, tokens = NETWORK.variables(base, trained), _tokens()
    plain = NETWORK.read(variables, tokens, None).logits
    assert np.abs(NETWORK.read(variables, tokens, full).logits - plain).max() > 1e-2
    # An empty one says nothing.
    np.testing.assert_array_equal(NETWORK.read(variables, tokens, NETWORK.empty(2)).logits, plain)
    other = full.replace(states=full.states.at[1].add(1.0))
    found = [NETWORK.read(variables, tokens, x).logits for x in (full, other)]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert np.abs(found[0][1] - found[1][1]).max() > 1e-3


def test_with_the_gate_shut_it_is_the_base_bit_for_bit(base, full):
    fresh = NETWORK.init(base, jax.random.key(1))
    fresh["recall"]["gate"]["bias"] = jnp.full(1, -jnp.inf)
    found = NETWORK.read(NETWORK.variables(base, fresh), _tokens(), full).logits
    expected = Transformer(SIZES).apply({"params": base}, _tokens())
    np.testing.assert_array_equal(found, expected)
    usual = NETWORK.init(base, jax.random.key(1))["recall"]["gate"]
    assert usual["bias"] == -5
    assert not usual["kernel"].any()


def test_no_gradient_reaches_what_wrote_the_memory(base, trained):
    def later(adapters, first):
        variables = NETWORK.variables(base, {**trained, "lora": adapters})
        fixed = NETWORK.variables(base, trained)
        memory = NETWORK.remember(
            NETWORK.empty(2), NETWORK.read(variables, first, NETWORK.empty(2))
        )
        return NETWORK.read(fixed, _tokens(), memory).logits.sum()

    grads = jax.grad(later)(trained["lora"], _tokens(seed=3))
    assert all((x == 0).all() for x in jax.tree.leaves(grads))


def test_noise_is_drawn_in_training_alone(base, trained, full):
    variables, tokens = NETWORK.variables(base, trained), _tokens()
    first, again = (NETWORK.read(variables, tokens, full).logits for _ in range(2))
    np.testing.assert_array_equal(first, again)
    drawn = [NETWORK.read(variables, tokens, full, jax.random.key(i)).logits for i in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3
    # Of an empty memory nothing is read, not even noise.
    empty = NETWORK.empty(2)
    noisy = NETWORK.read(variables, tokens, empty, jax.random.key(0)).logits
    np.testing.assert_allclose(noisy, NETWORK.read(variables, tokens, empty).logits, atol=1e-5)


@pytest.mark.parametrize("number", [1, 4, 6, 20])
def test_so_many_writes_fill_so_many_slots_and_the_highest_stay(number):
    memory = Memory.empty(MEMORY, 2, 3)
    priorities = jax.random.uniform(jax.random.key(number), (number, 2), minval=0.1)
    for i, priority in enumerate(priorities):
        memory = infinito.put(memory, jnp.full((2, 3), float(i)), priority)
    np.testing.assert_allclose(memory.use, min(number, 6) / 6)
    for row in range(2):
        best = np.argsort(priorities[:, row])[-min(number, 6) :]
        kept = memory.priority[row] > 0
        assert set(np.asarray(memory.states[row, kept, 0]).astype(int)) == set(best.tolist())


def test_what_is_below_the_threshold_is_not_written():
    memory = Memory.empty(MEMORY, 1, 3).replace(threshold=jnp.full(1, 0.4))
    memory = infinito.put(memory, jnp.ones((1, 3)), jnp.full(1, 0.4))
    assert memory.use == 0
    assert memory.writes == 0
    assert infinito.put(memory, jnp.ones((1, 3)), jnp.full(1, 0.41)).writes == 1


def test_use_sticks_neither_at_0_nor_at_1():
    """With a Φ that is mostly below the threshold, and with one that is mostly above."""
    config = dataclasses.replace(MEMORY, slots=16, parts=1, threshold=0.3, decay=0.9)
    for mean in (0.15, 1.0):
        memory, uses = Memory.empty(config, 1, 3), []
        random = np.random.default_rng(0)
        step = jax.jit(lambda memory, phi: infinito.write(config, memory, jnp.ones((1, 4, 3)), phi))
        for _ in range(400):
            phi = jnp.asarray([mean * random.lognormal(0, 0.3)], jnp.float32)
            memory = step(memory, phi)
            uses.append(float(memory.use[0]))
        late = np.array(uses[200:])
        assert 0 < late.mean() < 1
        assert (late > 0).mean() > 0.9
        assert (late < 1).mean() > 0.2
        assert config.lowest <= float(memory.threshold[0]) <= config.highest


def test_one_memory_for_all_rows():
    config = dataclasses.replace(MEMORY, shared=True, parts=1, slots=4)
    states = jnp.arange(3.0)[:, None, None] * jnp.ones((3, 4, 2))
    memory = infinito.write(config, Memory.empty(config, 3, 2), states, jnp.array([0.5, 0.6, 0.7]))
    assert memory.states.shape == (1, 4, 2)
    np.testing.assert_allclose(memory.states[0, :, 0], [0, 1, 2, 0])
    np.testing.assert_allclose(memory.priority[0, :3], 1 - np.exp([-0.5, -0.6, -0.7]), rtol=1e-5)


def test_writing_with_a_cache_is_reading_all_of_it(base, trained):
    """What is written greedily, segment by segment, is what a full reading finds likeliest."""
    from hrm_jax.engine.sampling import Choice, Sampling

    variables = NETWORK.variables(base, trained)
    begun = np.asarray(_tokens(rows=2))[:, :10].astype(np.int32)
    greedy = Choice.of(Sampling(temperature=0.0))
    choice = jax.tree.map(lambda x: np.stack([x, x]), greedy)
    tokens, told = NETWORK.write(variables, begun, 70, choice)
    assert tokens.shape == (2, 80)
    assert len(told) == 2
    assert told[1]["memory_use"] > 0
    memory = NETWORK.empty(2)
    for start in (0, 32, 64):
        part = tokens[:, start : start + 32]
        found = NETWORK.read(variables, jnp.asarray(part), memory)
        first = max(9 - start, 0)
        expected = np.asarray(found.logits.argmax(-1))[:, first:]
        made = tokens[:, start + first + 1 : start + 33]
        np.testing.assert_array_equal(expected[:, : made.shape[1]], made)
        memory = NETWORK.remember(memory, found)


def test_gaussian_phi_of_coupled_states_and_its_gradient():
    config = PhiConfig(dimensions=4, projections=3)
    drawn = jax.random.normal(jax.random.key(0), (2, 400, 16))
    walk = jnp.stack([drawn[:, 0]], axis=1)
    mixing = jax.random.normal(jax.random.key(1), (16, 16)) / 5
    states = [walk[:, 0]]
    for t in range(1, 400):
        states.append(jnp.tanh(states[-1] @ mixing) + 0.3 * drawn[:, t])
    coupled = infinito.gaussian_phi(config, jnp.stack(states, axis=1))
    apart = infinito.gaussian_phi(config, drawn)
    assert (coupled > apart + 0.1).all()
    grads = jax.grad(lambda x: infinito.gaussian_phi(config, x).sum())(drawn)
    assert np.isfinite(grads).all()
    assert np.abs(grads).max() > 0
    rescaled = infinito.gaussian_phi(config, 10 * jnp.stack(states, axis=1))
    np.testing.assert_allclose(rescaled, coupled, rtol=1e-3)


def test_components_at_their_ends():
    same = jnp.ones((1, 12, 8)) * jnp.arange(1.0, 9.0)
    even = jnp.zeros((1, 12, 2, 4))
    found = infinito.components(same, even, even)
    np.testing.assert_allclose(found.temporal, 1, rtol=1e-6)
    np.testing.assert_allclose(found.integration, 1, rtol=1e-6)
    np.testing.assert_allclose(found.complexity, 0, atol=1e-6)
    np.testing.assert_allclose(found.diversity, 1, rtol=1e-6)  # all that is seen, evenly
    noise = jax.random.normal(jax.random.key(0), (1, 400, 8))
    found = infinito.components(
        noise, *[100 * jax.random.normal(jax.random.key(i), (1, 400, 2, 4)) for i in (1, 2)]
    )
    assert abs(float(found.temporal[0]) - 0.5) < 0.05
    assert found.complexity > 0.9
    assert found.diversity < 0.2
    assert 0 < found.phi < 1


def test_nets_have_the_originals_sizes():
    attention, states = jnp.zeros((1, 12, 16, 16)), jnp.zeros((1, 16, 768))
    made = jax.eval_shape(lambda key: PhiNets().init(key, states, attention), jax.random.key(0))
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in made["params"].items()}
    assert sizes == {
        "temporal": 247_169, "integration": 844_673, "complexity": 402_945, "diversity": 101_377,
        "weights": 4,
    }  # fmt: skip


def test_nets_look_at_a_row_alone_and_all_of_them_count(base):
    keys = jax.random.split(jax.random.key(4), 4)
    states = jax.random.normal(keys[0], (3, 20, 32))
    attention = causal_attention(*jax.random.normal(keys[1], (2, 3, 20, 2, 16)))
    nets = PhiNets()
    made = nets.init(keys[2], states, attention)
    phi = nets.apply(made, states, attention)
    assert ((phi > 0) & (phi < 1)).all()
    np.testing.assert_allclose(nets.apply(made, states[1:2], attention[1:2]), phi[1:2], rtol=1e-5)
    scores = jnp.stack(nets.apply(made, states, attention, method="scores"), axis=-1)
    np.testing.assert_allclose(phi, scores.mean(axis=-1), rtol=1e-5)
    other = states.at[:, 11].mul(2), attention.at[:, :, 11].set(1 / 20)
    moved = jnp.stack(nets.apply(made, *other, method="scores"), axis=-1)
    assert (jnp.abs(moved - scores) > 1e-7).all()
    flatter = nets.apply(made, states, attention.at[:, 0, 11].set(1 / 20), method="scores")
    assert (flatter[1] != scores[:, 1]).all()  # integration is told how a head attends
    dropped = PhiNets(train=True).apply(made, states, attention, rngs={"dropout": keys[3]})
    assert (dropped != phi).all()


def test_the_heads_attention_is_averaged_as_torch_does():
    torch = pytest.importorskip("torch")
    for length in (8, 12, 20):
        x = np.random.default_rng(0).normal(size=(1, 1, length, length)).astype(np.float32)
        pool = _pooling(length)
        expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x), 8).numpy()
        np.testing.assert_allclose(pool @ x @ pool.T, expected, atol=1e-6)


def test_the_band():
    phi = jnp.array([0.2, 0.7, 1.5])
    np.testing.assert_allclose(infinito.beyond(phi, 0.5, 1.0), [0.09, 0, 0.25], rtol=1e-5)


def test_repetition_counts_groups_that_came_before():
    assert repetition(np.arange(20)[None]) == 0
    assert repetition(np.zeros((1, 13), int)) == pytest.approx(0.9)  # 9 of 10 groups
    assert repetition(np.array([[1, 2, 3, 4, 1, 2, 3, 4]])) == pytest.approx(0.2)
