"""The language models, told apart by the type of their configuration."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from hrm_jax.fields import require_memory
from hrm_jax.models.planner_executor import PlannerExecutor, PlannerExecutorConfig
from hrm_jax.models.transformer import LanguageModelConfig, Transformer


def network(config: LanguageModelConfig, train: bool = False) -> Any:
    """The `Transformer` or `PlannerExecutor` of these sizes."""
    kind = PlannerExecutor if isinstance(config, PlannerExecutorConfig) else Transformer
    return kind(config, train)  # type: ignore[arg-type]


def init(config: LanguageModelConfig, key: PRNGKeyArray) -> dict[str, Any]:
    """Draws fresh parameters; a `ConfigError` where they fit into no memory."""
    require_memory(config.weight_bytes)
    tokens = jnp.zeros((1, 2), jnp.int32)
    split = {"split": jnp.ones(1, jnp.int32)} if isinstance(config, PlannerExecutorConfig) else {}
    return network(config).init(key, tokens, **split)["params"]
