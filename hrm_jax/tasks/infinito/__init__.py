"""INFINITO: a language model with a memory and Φ, and an agent that schedules its training."""
