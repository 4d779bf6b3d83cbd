"""Which evaluation was the best, and whether to go on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from hrm_jax.fields import ConfigError, unknown_field
from hrm_jax.tasks.base import Figures, RunConfig

StopReason = Literal["token_limit", "max_iterations", "early_stopping"]


@dataclasses.dataclass(frozen=True)
class Rules:
    """When to stop; 0 is no limit. What an iteration is, the caller decides.

    Where `max_tokens` is set, the training stops at whichever comes first, the tokens or
    `token_limit_iterations`. (TenMinaTorc waits for both, so that 10 tokens at 5 a step become 60.)
    """

    max_iterations: int = 0
    patience: int = 0  # iterations without improvement
    min_delta: float = 0.0  # least change that counts as improvement
    max_tokens: int = 0
    token_limit_iterations: int = 12


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training has come since its beginning, as far as `Rules` care."""

    iterations: int = 0
    tokens: int = 0
    reference: float | None = None  # the last value that counted as an improvement
    stale: int = 0  # iterations since then

    def with_tokens(self, tokens: int) -> Progress:
        return dataclasses.replace(self, tokens=self.tokens + tokens)

    def with_iteration(self, rules: Rules, value: float | None) -> Progress:
        """After one more iteration with a value that is watched: higher is better, NaN never is;
        None if nothing is watched."""
        after = dataclasses.replace(self, iterations=self.iterations + 1)
        if value is None:
            return after
        better = self.reference is None or value > self.reference + rules.min_delta
        if better and not math.isnan(value):
            return dataclasses.replace(after, reference=value, stale=0)
        return dataclasses.replace(after, stale=self.stale + 1)

    def reason(self, rules: Rules) -> StopReason | None:
        """Why to stop now, the first that holds; None to go on."""
        if rules.max_tokens and (
            self.tokens >= rules.max_tokens or self.iterations >= rules.token_limit_iterations
        ):
            return "token_limit"
        if rules.max_iterations and self.iterations >= rules.max_iterations:
            return "max_iterations"
        if rules.patience and self.stale >= rules.patience:
            return "early_stopping"
        return None


class Stopping:
    """Follows a run: its limits, the figure that stops it, and the one that names the best weights
    (`control`, `early_stopping` and `best_metric` of its config). An iteration of `control` is an
    evaluation, the one at the end of the run included."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        rule = config.early_stopping
        patience = rule.patience if rule.metric else 0
        limits = dataclasses.asdict(config.control)
        self._rules = Rules(patience=patience, min_delta=rule.min_delta, **limits)
        self._progress = Progress()
        self._best: float | None = None

    @property
    def reason(self) -> StopReason | None:
        """Why to stop now; None to go on."""
        return self._progress.reason(self._rules)

    def add_tokens(self, tokens: int) -> None:
        self._progress = self._progress.with_tokens(tokens)

    def update(self, figures: Figures) -> bool:
        """Takes a new evaluation; returns whether it is the best so far. Raises `ConfigError` where
        a figure that the config names was not evaluated."""
        rule, name = self._config.early_stopping, self._config.best_metric
        value = self._figure(figures, rule.metric) if rule.metric else None
        if value is not None and rule.mode == "min":
            value = -value
        self._progress = self._progress.with_iteration(self._rules, value)
        value = self._figure(figures, name) if name else None
        better = value is not None and (self._best is None or value > self._best)
        self._best = value if better else self._best
        return better

    def _figure(self, figures: Figures, name: str) -> float:
        if name not in figures:
            raise ConfigError(unknown_field(name, figures))
        return float(figures[name])

    def state(self) -> dict[str, Any]:
        return {"best": self._best, **dataclasses.asdict(self._progress)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned; older states count neither iterations nor tokens."""
        fields = dict(state)
        self._best = fields.pop("best")
        self._progress = Progress(**fields)
