"""Reinforcement learning: environments, algorithms, and agents for anybody's loop."""

from hrm_jax.rl.agents import DQNAgent, PPOAgent

__all__ = ["DQNAgent", "PPOAgent"]
