"""The functions of DQN against Stable-Baselines3 and plain loops; the replay buffer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hrm_jax.models.actor_critic import QNetwork, QNetworkConfig
from hrm_jax.rl import dqn
from hrm_jax.rl.replay import Replay

OBSERVED, ACTIONS, ROWS = 5, 3, 32


def _batch(random):
    discount = np.where(random.random(ROWS) < 0.3, 0, 0.97).astype(np.float32)
    return dqn.Transition(
        random.normal(size=(ROWS, OBSERVED)).astype(np.float32),
        random.integers(0, ACTIONS, ROWS).astype(np.int32),
        3 * random.normal(size=ROWS).astype(np.float32),
        discount,
        random.normal(size=(ROWS, OBSERVED)).astype(np.float32),
    )


def _sb3(batch):
    """Stable-Baselines3's DQN, given the batch by its replay buffer, after one update without
    effect; what it logs, and the parameters of its two networks."""
    sb3 = pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")
    torch = pytest.importorskip("torch")
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    class Spaces(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVED,))
        action_space = gymnasium.spaces.Discrete(ACTIONS)

    torch.manual_seed(0)
    sgd = {"net_arch": [16, 16], "optimizer_class": torch.optim.SGD}
    model = sb3.DQN(
        "MlpPolicy",
        Spaces(),
        learning_rate=0.0,
        max_grad_norm=1e9,
        policy_kwargs=sgd,
        buffer_size=10,
        device="cpu",
    )
    model.set_logger(Logger(None, []))
    with torch.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tensors = {k: torch.tensor(v) for k, v in vars(batch).items()}
    columns = {k: tensors[k][:, None] for k in ("action", "reward", "discount")}
    model.replay_buffer.sample = lambda *args, **kwargs: ReplayBufferSamples(
        observations=tensors["observation"],
        actions=columns["action"],
        next_observations=tensors["following"],
        dones=(columns["discount"] == 0).float(),
        rewards=columns["reward"],
        discounts=columns["discount"],
    )
    model.train(1, ROWS)
    return model, model.logger.name_to_value["train/loss"]


def _ours(network, read):
    """Weights of a network of Stable-Baselines3 as ours are named; `read` takes one parameter."""
    names = ("dense_0", "dense_1", "value_head")
    found = {}
    for name, layer in zip(names, [network.q_net[i] for i in (0, 2, 4)], strict=True):
        found.setdefault("body", {})[name] = {"kernel": read(layer.weight).T,
                                              "bias": read(layer.bias)}  # fmt: skip
    found["value_head"] = found["body"].pop("value_head")
    return found


def test_loss_and_gradients_are_those_of_stable_baselines3():
    batch = _batch(np.random.default_rng(0))
    model, expected = _sb3(batch)
    network = QNetwork(QNetworkConfig(hidden=(16, 16)), ACTIONS)
    params = _ours(model.q_net, lambda x: x.detach().numpy())
    target = _ours(model.q_net_target, lambda x: x.detach().numpy())

    def objective(params):
        wanted = dqn.targets(batch, network.apply({"params": target}, batch.following, 1))
        values = network.apply({"params": params}, batch.observation, 1)
        return dqn.loss(values, jnp.asarray(batch.action), wanted, jnp.ones(ROWS), 1.0)[0]

    found, grads = jax.value_and_grad(objective)(params)
    assert 0.5 < expected == pytest.approx(float(found), abs=1e-5)
    theirs = _ours(model.q_net, lambda x: x.grad.numpy())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, theirs)
    assert max(float(abs(x).max()) for x in jax.tree.leaves(grads)) > 0.05


def test_double_takes_the_action_that_the_learning_network_likes():
    transition = dqn.Transition(
        jnp.zeros((2, 1)), jnp.zeros(2, int), jnp.ones(2), jnp.array([0.5, 0.0]), jnp.zeros((2, 1))
    )
    values, judged = jnp.array([[2.0, 6.0]] * 2), jnp.array([[4.0, 3.0]] * 2)
    assert dqn.targets(transition, values).tolist() == [4.0, 1.0]
    assert dqn.targets(transition, values, judged).tolist() == [2.0, 1.0]


def test_a_loss_without_huber_is_squared_and_weights_count():
    values, wanted = jnp.array([[3.0, 9.0], [9.0, 1.0]]), jnp.array([0.0, 0.5])
    picks = jnp.array([0, 1])
    for huber, each in ((0.0, [4.5, 0.125]), (1.0, [2.5, 0.125]), (2.0, [4.0, 0.125])):
        loss, parts = dqn.loss(values, picks, wanted, jnp.array([1.0, 0.5]), huber)
        assert float(loss) == pytest.approx((each[0] + 0.5 * each[1]) / 2)
        assert parts["error"].tolist() == [3.0, 0.5]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_n_steps_against_a_loop(n):
    random = np.random.default_rng(n)
    length, rows, gamma = 40, 3, 0.9
    terminated = random.random((length, rows)) < 0.15
    ended = terminated | (random.random((length, rows)) < 0.15)
    steps = dqn.Step(
        np.arange(length * rows).reshape(length, rows, 1),
        random.integers(0, 4, (length, rows)),
        random.normal(size=(length, rows)).astype(np.float32),
        1000 + np.arange(length * rows).reshape(length, rows, 1),
        terminated,
        ended,
    )
    found = jax.jit(lambda x: dqn.n_step(x, n, gamma))(steps)
    found = jax.tree.map(np.asarray, found)
    assert found.reward.shape == (length - n + 1, rows)
    lengths = set()
    for t in range(length - n + 1):
        for b in range(rows):
            total, k = steps.reward[t, b], 0
            while k < n - 1 and not ended[t + k, b]:
                k += 1
                total += gamma**k * steps.reward[t + k, b]
            lengths.add(k)
            discount = 0 if terminated[t + k, b] else gamma ** (k + 1)
            assert found.reward[t, b] == pytest.approx(total, abs=1e-5)
            assert found.discount[t, b] == pytest.approx(discount)
            assert found.following[t, b, 0] == steps.following[t + k, b, 0]
            assert found.observation[t, b, 0] == steps.observation[t, b, 0]
            assert found.action[t, b] == steps.action[t, b]
    assert lengths == set(range(n))


_ADD = jax.jit(Replay.add)
_SAMPLE = jax.jit(Replay.sample, static_argnums=2)
_PRIORITIZE = jax.jit(Replay.prioritize)


def _add(replay, numbers, valid=None):
    numbers = np.array(numbers, np.int32)
    items = {"number": numbers, "picture": np.stack([numbers % 256] * 2, 1).astype(np.uint8)}
    return _ADD(replay, items, np.ones(len(numbers), bool) if valid is None else np.array(valid))


def _empty(capacity, prioritized=False):
    return Replay.empty(
        {"number": jnp.int32(0), "picture": jnp.zeros(2, jnp.uint8)}, capacity, prioritized
    )


@pytest.mark.parametrize("prioritized", [False, True])
def test_the_ring_keeps_the_newest(prioritized):
    replay = _empty(10, prioritized)
    for first in range(0, 28, 4):
        replay = _add(replay, first + np.arange(4))
        assert int(replay.size) == min(first + 4, 10)
    assert sorted(replay.items["number"].tolist()) == list(range(18, 28))
    assert replay.items["number"][27 % 10] == 27
    assert replay.items["picture"].dtype == jnp.uint8
    replay = _add(replay, [100, 101, 102, 103], [False, True, False, True])
    assert sorted(replay.items["number"].tolist()) == [*range(20, 28), 101, 103]
    assert int(replay.position) == 0
    if prioritized:
        assert replay.tree[1] == 10
        assert replay.tree[len(replay.tree) // 2 :].tolist() == [1.0] * 10 + [0.0] * 6


@pytest.mark.parametrize(("added", "size"), [(60, 60), (130, 100)])
def test_uniform_draws_are_uniform(added, size):
    replay = _add(_empty(130), np.arange(added)) if added < 100 else _empty(100)
    if added >= 100:
        replay = _add(_add(replay, np.arange(100)), np.arange(30))
    places, probability = _SAMPLE(replay, jax.random.key(0), 60_000)
    counts = np.bincount(places, minlength=size)
    assert len(counts) == size
    assert stats.chisquare(counts).pvalue > 0.001
    np.testing.assert_allclose(probability, 1 / size, rtol=1e-6)


def test_draws_by_priority_follow_the_formula():
    alpha, offset = 0.6, 1e-6
    errors = np.random.default_rng(0).exponential(size=50).astype(np.float32)
    errors[7] = 0
    replay = _add(_empty(64, prioritized=True), np.arange(50))
    replay = _PRIORITIZE(replay, np.arange(50), (errors + offset) ** alpha)
    expected = (errors + offset) ** alpha / ((errors + offset) ** alpha).sum()
    draw = jax.jit(jax.vmap(lambda key: replay.sample(key, 32)))
    places, probability = draw(jax.random.split(jax.random.key(1), 2000))
    counts = np.bincount(places.ravel(), minlength=50)
    assert len(counts) == 50  # places that hold nothing are never drawn
    np.testing.assert_allclose(probability, expected[places], rtol=1e-4)
    # One of each stratum: less than a multinomial's variance, so its bounds hold all the more.
    bound = 5 * np.sqrt(expected * counts.sum()) + 1
    assert (abs(counts - expected * counts.sum()) < bound).all()
    weights = dqn.importance(jnp.asarray(expected), jnp.int32(50), 0.4)
    formula = (50 * expected) ** -0.4
    np.testing.assert_allclose(weights, formula / formula.max(), rtol=1e-5)
    assert dqn.importance(jnp.full(4, 0.25), jnp.int32(4), 1.0).tolist() == [1.0] * 4


def test_new_transitions_have_the_largest_priority():
    replay = _add(_empty(8, prioritized=True), np.arange(4))
    replay = _PRIORITIZE(replay, np.array([1, 1, 2]), np.float32([5.0, 5.0, 0.25]))
    replay = _add(replay, [4])
    leaves = replay.tree[len(replay.tree) // 2 :]
    assert leaves[:6].tolist() == [1.0, 5.0, 0.25, 1.0, 5.0, 0.0]
    assert replay.tree[1] == 12.25


def test_sums_of_priorities_do_not_drift():
    replay = _add(_empty(1000, prioritized=True), np.arange(1000))
    random = np.random.default_rng(0)
    for _ in range(100):
        places = random.choice(1000, 64, replace=False)
        replay = _PRIORITIZE(replay, places, np.float32(10.0 ** random.uniform(-6, 6, 64)))
    leaves = np.asarray(replay.tree[len(replay.tree) // 2 :], np.float64)
    np.testing.assert_allclose(replay.tree[1], leaves.sum(), rtol=1e-6)


def test_epsilon_and_other_schedules_stay_at_their_ends():
    ends = [float(dqn.linear(1.0, 0.1, x)) for x in (-1.0, 0.0, 0.5, 1.0, 7.0)]
    assert ends == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
