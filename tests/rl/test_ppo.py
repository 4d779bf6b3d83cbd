"""PPO's numbers: advantages by hand, losses and gradients as Stable-Baselines3 has them."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_baselines3
import torch

from hrm_jax.rl import ppo
from hrm_jax.rl.distributions import Categorical, DiagonalGaussian, MultiCategorical, distribution
from hrm_jax.rl.spaces import Box, Discrete, MultiDiscrete
from hrm_jax.rl.statistics import Statistics


def test_advantages_are_those_of_a_loop():
    random = np.random.default_rng(0)
    steps, envs, gamma, lam = 23, 5, 0.9, 0.8
    rewards, values, later = random.normal(size=(3, steps, envs)).astype(np.float32)
    terminated = random.random((steps, envs)) < 0.15
    truncated = random.random((steps, envs)) < 0.15
    given = map(jnp.asarray, (rewards, values, later, terminated, truncated))
    ours = ppo.advantages(*given, gamma, lam)
    expected = np.zeros((steps, envs))
    for env in range(envs):
        for first in range(steps):
            weight = 1.0
            for t in range(first, steps):
                to_come = 0.0 if terminated[t, env] else later[t, env]
                expected[first, env] += weight * (
                    rewards[t, env] + gamma * to_come - values[t, env]
                )
                weight *= gamma * lam
                if terminated[t, env] or truncated[t, env]:
                    break
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "theirs", "value_clip"),
    [
        (Discrete(3), gymnasium.spaces.Discrete(3), 0.0),
        (MultiDiscrete((2, 4)), gymnasium.spaces.MultiDiscrete([2, 4]), 0.15),
        (Box(-1, 1, (2,)), gymnasium.spaces.Box(-1, 1, (2,)), 0.15),
    ],
)
def test_losses_and_gradients_are_those_of_stable_baselines(space, theirs, value_clip):
    """One update of a minibatch of the same numbers, by the other's own `train`."""
    rows, clip = 32, 0.2
    policy = distribution(space)

    class Env(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-5, 5, (3,))
        action_space = theirs

        def reset(self, **_):
            return np.zeros(3, np.float32), {}

        def step(self, action):
            return np.zeros(3, np.float32), 0.0, False, False, {}

    agent = stable_baselines3.PPO(
        "MlpPolicy", Env(), n_steps=rows, batch_size=rows, n_epochs=1, clip_range=clip,
        clip_range_vf=value_clip or None, ent_coef=0.01, vf_coef=0.7, learning_rate=0.0,
        max_grad_norm=1e9, seed=0,
    )  # fmt: skip
    agent.set_logger(stable_baselines3.common.logger.configure(None, []))
    random = np.random.default_rng(0)
    seen = random.normal(size=(rows, 3)).astype(np.float32)
    with torch.no_grad():
        actions, values, log_probs = agent.policy(torch.from_numpy(seen))
    # As if the policy had been another one when it acted.
    log_probs = log_probs.numpy() + random.normal(size=rows).astype(np.float32) * 0.3
    values = values.numpy()[:, 0] + random.normal(size=rows).astype(np.float32)
    advantage, target = random.normal(size=(2, rows)).astype(np.float32)

    buffer = agent.rollout_buffer
    buffer.reset()
    buffer.observations[:, 0] = seen
    buffer.actions[:] = actions.numpy().reshape(buffer.actions.shape)
    buffer.log_probs[:, 0], buffer.values[:, 0] = log_probs, values
    buffer.advantages[:, 0], buffer.returns[:, 0] = advantage, target
    buffer.full = True
    agent.train()
    told = agent.logger.name_to_value
    expected = {k: v.grad.numpy() for k, v in agent.policy.named_parameters() if v.grad is not None}

    from hrm_jax.interop.stable_baselines3 import from_state_dict, to_state_dict
    from hrm_jax.models.actor_critic import ActorCritic

    state = {k: v.numpy() for k, v in agent.policy.state_dict().items()}
    config, params = from_state_dict(state)
    network = ActorCritic(config, policy.size, policy.gaussian)
    sample = ppo.Sample(seen, jnp.asarray(actions.numpy()), log_probs, values, advantage, target)
    objective = ppo.Objective(value_weight=0.7, entropy_weight=0.01, value_clip=value_clip)

    def loss(params):
        outputs, now = network.apply({"params": params}, seen, 1)
        return ppo.loss(policy, objective, outputs, now, sample, clip)

    (total, parts), grads = jax.value_and_grad(loss, has_aux=True)(params)
    np.testing.assert_allclose(total, told["train/loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts["policy_loss"], told["train/policy_gradient_loss"], atol=1e-6)
    np.testing.assert_allclose(parts["value_loss"], told["train/value_loss"], rtol=1e-5)
    np.testing.assert_allclose(parts["kl"], told["train/approx_kl"], atol=1e-6)
    np.testing.assert_allclose(parts["clip_fraction"], told["train/clip_fraction"], atol=1e-6)
    ours = to_state_dict(grads)
    assert set(ours) == set(expected)
    for name, grad in expected.items():
        np.testing.assert_allclose(ours[name], grad, atol=1e-5, err_msg=name)


def test_distributions():
    key = jax.random.key(0)
    outputs = jax.random.normal(key, (5,))
    one, two = Categorical(2), Categorical(3)
    both = MultiCategorical((2, 3))
    for first in range(2):
        for second in range(3):
            joint = one.log_prob(outputs[:2], jnp.int32(first))
            joint += two.log_prob(outputs[2:], jnp.int32(second))
            assert np.isclose(both.log_prob(outputs, jnp.array([first, second])), joint)
    drawn = jax.vmap(lambda k: both.sample(outputs, k))(jax.random.split(key, 4000))
    np.testing.assert_allclose(
        np.bincount(drawn[:, 1], minlength=3) / 4000, jax.nn.softmax(outputs[2:]), atol=0.03
    )
    assert np.isclose(both.entropy(outputs), one.entropy(outputs[:2]) + two.entropy(outputs[2:]))
    gaussian = DiagonalGaussian(Box(np.array([-1.0, 0.0]), np.array([1.0, 6.0])))
    outputs = jnp.array([0.3, -2.0, 0.1, -0.4])
    normal = torch.distributions.Normal(torch.tensor([0.3, -2.0]), torch.tensor([0.1, -0.4]).exp())
    raw = jnp.array([2.0, -1.0])
    expected = normal.log_prob(torch.tensor([2.0, -1.0])).sum()
    assert np.isclose(gaussian.log_prob(outputs, raw), expected)
    assert np.isclose(gaussian.entropy(outputs), normal.entropy().sum())
    np.testing.assert_array_equal(gaussian.act(raw), [1, 0])
    squashed = DiagonalGaussian(gaussian.box, squash=True)
    np.testing.assert_allclose(squashed.act(raw), [np.tanh(2), 3 + 3 * np.tanh(-1)], rtol=1e-6)


def test_statistics_are_those_of_all_that_was_seen():
    random = np.random.default_rng(0)
    seen = random.normal(3, 2, (40, 4, 5)).astype(np.float32)
    statistics = Statistics.empty((5,))
    np.testing.assert_array_equal(statistics.normalize(jnp.ones(5)), np.ones(5))
    for part in np.split(seen, 4):
        statistics = statistics.update(jnp.asarray(part))
    np.testing.assert_allclose(statistics.mean, seen.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, seen.var((0, 1)), rtol=1e-4)
    normal = statistics.normalize(jnp.asarray(seen))
    assert abs(float(normal.mean())) < 1e-4
    assert float(statistics.normalize(jnp.full(5, 1e6)).max()) == 10
