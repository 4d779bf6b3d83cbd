"""Reinforcement learning: environments, and what algorithms share."""
