"""Reinforcement learning: environments, algorithms, and agents for anybody's loop."""

from hrm_jax.rl.agents import PPOAgent

__all__ = ["PPOAgent"]
