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
    """When to stop. What an iteration is, the caller decides.

    Attributes:
        max_iterations: Iterations in all; 0 for no limit.
        patience: Iterations without improvement after which to stop; 0 never stops for that.
        min_delta: Least change that counts as improvement.
        max_tokens: Tokens in all; 0 for no limit.
        token_limit_iterations: Iterations in all where `max_tokens` is set. The training stops at
            whichever comes first, the tokens or these iterations. (TenMinaTorc waits for both, so
            that 10 tokens at 5 a step become 60.)
    """

    max_iterations: int = 0
    patience: int = 0
    min_delta: float = 0.0
    max_tokens: int = 0
    token_limit_iterations: int = 12


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training has come, as far as `Rules` care.

    Attributes:
        iterations, tokens: Those done, before any resume too.
        reference: The last value that counted as an improvement, None before the first.
        stale: Iterations since then.
    """

    iterations: int = 0
    tokens: int = 0
    reference: float | None = None
    stale: int = 0

    def with_tokens(self, tokens: int) -> Progress:
        """After so many more tokens."""
        return dataclasses.replace(self, tokens=self.tokens + tokens)

    def with_iteration(self, rules: Rules, value: float | None) -> Progress:
        """After one more iteration.

        Args:
            rules: What counts as an improvement.
            value: What is watched, higher is better, NaN never is; None if nothing is.
        """
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
    """Follows a run: its limits, the figure that stops it, and the one that names the best weights.

    An iteration of `config.control` is an evaluation, the one at the end of the run included.
    """

    def __init__(self, config: RunConfig) -> None:
        """Args: config: its `control`, `early_stopping` and `best_metric` are followed."""
        self._config = config
        rule = config.early_stopping
        self._rules = Rules(
            max_iterations=config.control.max_iterations,
            patience=rule.patience if rule.metric else 0,
            min_delta=rule.min_delta,
            max_tokens=config.control.max_tokens,
            token_limit_iterations=config.control.token_limit_iterations,
        )
        self._progress = Progress()
        self._best: float | None = None

    @property
    def reason(self) -> StopReason | None:
        """Why to stop now; None to go on."""
        return self._progress.reason(self._rules)

    def add_tokens(self, tokens: int) -> None:
        """Counts the tokens of steps that are done."""
        self._progress = self._progress.with_tokens(tokens)

    def update(self, figures: Figures) -> bool:
        """Takes a new evaluation; returns whether it is the best so far.

        Raises:
            ConfigError: A figure that the config names is not among those evaluated.
        """
        rule, name = self._config.early_stopping, self._config.best_metric
        value = self._figure(figures, rule.metric) if rule.metric else None
        if value is not None and rule.mode == "min":
            value = -value
        self._progress = self._progress.with_iteration(self._rules, value)
        if not name:
            return False
        value = self._figure(figures, name)
        better = self._best is None or value > self._best
        self._best = value if better else self._best
        return better

    def _figure(self, figures: Figures, name: str) -> float:
        if name not in figures:
            raise ConfigError(unknown_field(name, figures))
        return float(figures[name])

    def state(self) -> dict[str, Any]:
        """JSON values that `restore` takes."""
        return {"best": self._best, **dataclasses.asdict(self._progress)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned; older states count neither iterations nor tokens."""
        fields = dict(state)
        self._best = fields.pop("best")
        self._progress = Progress(**fields)
