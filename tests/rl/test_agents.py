"""The agents for anybody's loop, in gymnasium's."""

import pickle

import gymnasium
import numpy as np
import pytest

from hrm_jax.rl import DQNAgent, PPOAgent


def _play(agent, environment, episodes):
    """The seed's loop, with gymnasium's five values."""
    returns = []
    state, _ = environment.reset(seed=0)
    for _ in range(episodes):
        done = False
        total = 0.0
        while not done:
            action = agent.select_action(state)
            state, reward, terminated, truncated, _ = environment.step(action)
            done = terminated or truncated
            agent.store_reward(reward, done)
            total += reward
        assert np.isfinite(agent.train_step())
        returns.append(total)
        state, _ = environment.reset()
    return returns


def _best(returns, window=20):
    """The best mean of so many episodes in a row."""
    return max(np.mean(returns[i : i + window]) for i in range(len(returns) - window + 1))


def test_ppo_learns_and_comes_back_from_its_file(tmp_path):
    agent = PPOAgent(state_dim=4, action_dim=2, learning_rate=1e-3)
    returns = _play(agent, gymnasium.make("CartPole-v1", max_episode_steps=200), 110)
    assert _best(returns) > 2.5 * np.mean(returns[:10])
    agent.save(tmp_path / "ppo_model.pkl")
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "ppo_model.pkl").read_bytes())  # there is none in it
    other = PPOAgent(4, 2, learning_rate=1e-3, seed=5)
    other.load(tmp_path / "ppo_model.pkl")
    states = np.random.default_rng(0).normal(size=(20, 4))
    ours, theirs = (
        [x.select_action(s, deterministic=True) for s in states] for x in (agent, other)
    )
    assert ours == theirs
    assert set(ours) == {0, 1}
    with pytest.raises(ValueError, match="not of an agent with state_dim=3"):
        PPOAgent(3, 2).load(tmp_path / "ppo_model.pkl")


def test_dqn_learns():
    """The seed's loop, with gymnasium's five values."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=200)
    agent = DQNAgent(state_dim=4, action_dim=2, seed=1)
    returns = []
    state, _ = env.reset(seed=1)
    while sum(returns) < 6000:
        done = False
        total = 0.0
        while not done:
            action = agent.select_action(state)
            next_state, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            agent.store_transition(state, action, reward, next_state, done)
            loss = agent.train_step()
            state = next_state
            total += reward
        returns.append(total)
        state, _ = env.reset()
    assert loss > 0
    assert _best(returns) > 3 * np.mean(returns[:10])


def test_what_dqn_stores():
    """Rewards of up to five steps, and what follows: nothing after an end, the last state after a
    limit of time."""
    agent = DQNAgent(1, 2, gamma=0.5, buffer_capacity=8, batch_size=64)
    assert agent.train_step() == 0
    for step in range(6):
        agent.store_transition([step], step % 2, 1.0, [step + 1], False)
    agent.store_transition([50], 0, 3.0, [51], True)  # of another episode
    steps = agent._steps
    np.testing.assert_array_equal(steps.observation[:7, 0], [0, 1, 2, 3, 4, 5, 50])
    np.testing.assert_array_equal(steps.following[:7, 0], [5, 6, 6, 6, 6, 6, 51])
    np.testing.assert_allclose(steps.reward[:7], [1.9375, 1.9375, 1.875, 1.75, 1.5, 1, 3])
    np.testing.assert_allclose(steps.discount[:7], [2**-5, 2**-5, 2**-4, 1 / 8, 1 / 4, 1 / 2, 0])
    for action, reward in ((2, 1.0), (0, np.inf)):
        with pytest.raises(ValueError, match=r"(action|reward): "):
            agent.store_transition([0], action, reward, [1], False)


class _Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_files_of_others_are_refused(tmp_path, capsys):
    agent = PPOAgent(4, 2)
    for name, content in {
        "evil.pkl": pickle.dumps(_Evil()),
        "text": b"hello",
        "cut.pkl": b"PK\x03\x04" + bytes(30),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            agent.load(tmp_path / name)
    np.savez(tmp_path / "objects.npz", x=np.array([_Evil()], object))
    with pytest.raises(ValueError, match=r"objects\.npz"):
        agent.load(tmp_path / "objects.npz")
    assert "run" not in capsys.readouterr().out


def test_an_episode_that_is_cut_off_is_worth_what_would_follow():
    """The same steps, ended or cut off by a limit of time, are not learnt from alike."""
    biases = []
    for last_state in (None, np.ones(4)):
        agent = PPOAgent(4, 2, learning_rate=1e-2)
        for step in range(8):
            agent.select_action(np.zeros(4))
            agent.store_reward(1.0, step == 7, last_state if step == 7 else None)
        agent.train_step()
        biases.append(float(agent.learned["params"]["value_head"]["bias"][0]))
    assert biases[0] != biases[1]


def test_bad_input_is_named():
    agent = PPOAgent(4, 2)
    assert agent.train_step() == 0
    for state in (np.zeros(3), [np.nan] * 4):
        with pytest.raises(ValueError, match="state: "):
            agent.select_action(state)
    with pytest.raises(ValueError, match="store_reward: no action"):
        agent.store_reward(1.0, False)
    agent.select_action(np.zeros(4))
    with pytest.raises(ValueError, match="the last action has no reward"):
        agent.select_action(np.zeros(4))
    with pytest.raises(ValueError, match="train_step: the last action has no reward"):
        agent.train_step()
    with pytest.raises(ValueError, match="reward: expected a finite number"):
        agent.store_reward(np.nan, False)
    with pytest.raises(ValueError, match="last_state"):
        agent.store_reward(1.0, False, np.zeros(4))
