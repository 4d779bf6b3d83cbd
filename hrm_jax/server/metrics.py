"""What the server tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hrm_jax.engine.engine import Engine
from hrm_jax.engine.requests import Handle

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts requests as HTTP sees them; tokens and the queue are the engine's own figures."""

    def __init__(self, engine: Engine) -> None:
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
        self._registry.register(_EngineFigures(engine))

    def request(self, endpoint: str, outcome: str) -> None:
        """Counts a request."""
        self._requests.labels(endpoint, outcome).inc()

    def answer(self, handle: Handle) -> None:
        """Takes the times of an answer that is complete."""
        times = handle.times
        if times.first is not None:
            self._first.observe(times.first - times.submitted)
        if times.ended is not None:
            self._total.observe(times.ended - times.submitted)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineFigures(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats
        yield GaugeMetricFamily("hrm_jax_running", "Answers being written.", stats.running)
        yield GaugeMetricFamily("hrm_jax_waiting", "Answers in the queue.", stats.waiting)
        tokens = CounterMetricFamily("hrm_jax_tokens", "Tokens read and made.", labels=["kind"])
        tokens.add_metric(["prompt"], stats.prompt_tokens)
        tokens.add_metric(["generated"], stats.generated_tokens)
        yield tokens
        answers = CounterMetricFamily(
            "hrm_jax_answers", "Answers by how they ended.", labels=["reason"]
        )
        for reason, count in stats.finished.items():
            answers.add_metric([reason], count)
        yield answers
        compilations = CounterMetricFamily(
            "hrm_jax_compilations", "Compiled programs, by name and shape.", labels=["program"]
        )
        for program, count in stats.compilations.items():
            compilations.add_metric([str(program)], count)
        yield compilations
