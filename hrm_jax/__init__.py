"""hrm_jax."""
