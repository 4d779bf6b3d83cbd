"""Which evaluation was the best, and whether to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hrm_jax.configs import ConfigError, unknown_field
from hrm_jax.tasks.base import EarlyStopping, Figures


class Stopping:
    """Follows two figures: the one that names the best weights, and the one that stops the run.

    Attributes:
        stop: Whether patience has run out.
    """

    def __init__(self, rule: EarlyStopping, best_metric: str) -> None:
        """Args: rule: when to stop; best_metric: figure whose highest value marks the best."""
        self._rule = rule
        self._best_metric = best_metric
        self._best: float | None = None
        self._reference: float | None = None
        self._stale = 0

    @property
    def stop(self) -> bool:
        """Whether the last `patience` evaluations brought no improvement."""
        return bool(self._rule.metric) and self._stale >= self._rule.patience

    def update(self, figures: Figures) -> bool:
        """Takes a new evaluation; returns whether it is the best so far.

        Raises:
            ConfigError: A figure that the config names is not among those evaluated.
        """
        if self._rule.metric:
            value = self._figure(figures, self._rule.metric)
            value = value if self._rule.mode == "max" else -value
            if self._reference is None or value > self._reference + self._rule.min_delta:
                self._reference, self._stale = value, 0
            else:
                self._stale += 1
        if not self._best_metric:
            return False
        value = self._figure(figures, self._best_metric)
        better = self._best is None or value > self._best
        self._best = value if better else self._best
        return better

    def _figure(self, figures: Figures, name: str) -> float:
        if name not in figures:
            raise ConfigError(unknown_field(name, figures))
        return float(figures[name])

    def state(self) -> dict[str, Any]:
        """JSON values that `restore` takes."""
        return {"best": self._best, "reference": self._reference, "stale": self._stale}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self._best, self._reference = state["best"], state["reference"]
        self._stale = state["stale"]
