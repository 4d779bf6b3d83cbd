"""What the server tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hrm_jax.engine.engine import Engine
from hrm_jax.engine.requests import Handle

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics(Collector):
    """Counts requests as HTTP sees them; tokens and the queue are the engine's own figures."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "hrm_jax_requests", "Requests by how they ended.", ["endpoint", "outcome"],
            registry=self._registry,
        )  # fmt: skip
        self._first = Histogram(
            "hrm_jax_time_to_first_token_seconds", "From submission to the first token.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._total = Histogram(
            "hrm_jax_generation_seconds", "From submission to the end of an answer.",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._registry.register(self)

    def request(self, endpoint: str, outcome: str) -> None:
        self._requests.labels(endpoint, outcome).inc()

    def answer(self, handle: Handle) -> None:
        """Takes the times of an answer that is complete."""
        times = handle.times
        if times.first is not None:
            self._first.observe(times.first - times.submitted)
        if times.ended is not None:
            self._total.observe(times.ended - times.submitted)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats
        yield GaugeMetricFamily("hrm_jax_running", "Answers being written.", stats.running)
        yield GaugeMetricFamily("hrm_jax_waiting", "Answers in the queue.", stats.waiting)
        tokens = {
            "prompt": stats.prompt_tokens,
            "cached": stats.cached_tokens,
            "generated": stats.generated_tokens,
            "guessed": stats.guessed_tokens,
        }
        for name, what, label, counts in (
            (
                "tokens",
                "Tokens of prompts, those read before, those made, those guessed.",
                "kind",
                tokens,
            ),
            ("answers", "Answers by how they ended.", "reason", stats.finished),
            ("compilations", "Compilations, by name and shape.", "program", stats.compilations),
        ):
            family = CounterMetricFamily(f"hrm_jax_{name}", what, labels=[label])
            for key, count in counts.items():
                family.add_metric([key], count)
            yield family
