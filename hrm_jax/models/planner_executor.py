"""A language model that first plans, then writes: the planner–executor of HRM_ESP.

The planner reads what was written so far in both directions and turns it into a few plan vectors,
taken from a codebook or continuous. The executor, a causal Transformer, reads the same text, then
the plan in the place of PLAN tokens, and goes on writing. So the text is

    BOS prompt PLAN … PLAN continuation EOS

in training as in generation. Or (`plans_from`) the planner reads the text before all that the
executor reads, and the plan stands in front:

    [text before] PLAN … PLAN prompt continuation

The codebook is straight-through Gumbel-softmax: one code is chosen,
the gradient is that of the relaxed choice.

References:
    Jang et al., Categorical Reparameterization with Gumbel-Softmax
    (https://arxiv.org/abs/1611.01144), §2.2, for the straight-through form.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from hrm_jax.fields import require_fields, require_range
from hrm_jax.layers.dense import Dense
from hrm_jax.models.transformer import LanguageModelConfig, Transformer, TransformerConfig


@dataclasses.dataclass(frozen=True)
class PlannerExecutorConfig(LanguageModelConfig):
    """A `LanguageModelConfig` of two networks; the defaults are the original's (43.1M parameters).

    Attributes:
        max_length: Most tokens that the executor reads and writes, beside the plan.
        feed_forward: Kind of the gated feed-forward layers.
        dropout: As in `LanguageModelConfig`, and on the pooled vector of the planner.
        plan_id, pad_id: Token that stands for a plan vector, and the one that stands for nothing.
        planner_layers, executor_layers: Blocks of each.
        planner_length: Most tokens that the planner reads; of a longer text the last.
        plans_from: What the planner reads: the prompt, which the executor reads too, as in the
            original; or the text before, which is beyond the executor's `max_length`.
        pooling: What a plan vector is made of: the mean of all that was read, as in the original,
            or of one of M equal parts of it.
        plan_size: Size E of a plan vector.
        num_plans: Plan vectors M.
        num_codes: Codes K of the codebook that all plan vectors share; 0 leaves them continuous.
        code_temperature: Divides the cosines between plan and codes, which are then logits.
        executor_sees_prompt: Whether the executor reads the text before the plan. Where it does
            not, all that it knows of it is in the plan.
    """

    variant: ClassVar[str] = "planner_executor"

    max_length: int = 512
    positions: Literal["sinusoidal", "learned", "rotary"] = "learned"
    feed_forward: Literal["geglu", "swiglu"] = "geglu"
    plan_id: int = 259
    pad_id: int = 256
    planner_layers: int = 2
    executor_layers: int = 8
    planner_length: int = 512
    plans_from: Literal["prompt", "before"] = "prompt"
    pooling: Literal["mean", "parts"] = "mean"
    plan_size: int = 256
    num_plans: int = 1
    num_codes: int = 32
    code_temperature: float = 0.1
    executor_sees_prompt: bool = True

    def unused(self) -> dict[str, str]:
        found = {} if self.num_codes else {"code_temperature": "num_codes is 0"}
        if self.plans_from == "before":
            found["executor_sees_prompt"] = "plans_from is 'before'"
        if self.num_plans == 1:
            found["pooling"] = "num_plans is 1"
        return found

    def __post_init__(self) -> None:
        check, size = functools.partial(require_fields, self, "model"), self.vocab_size
        limits = functools.partial(require_range, self, "model")
        limits(1, 4096, "planner_layers", "executor_layers")
        limits(1, 2**20, "plan_size")
        limits(1, 2**16, "num_plans")
        limits(1, 2**23, "max_length", "planner_length")
        if self.pooling == "parts":
            check(
                f"1 to planner_length {self.planner_length}, for pooling by parts",
                lambda x: 1 <= x <= self.planner_length,
                "num_plans",
            )
        check("0 or at least 2", lambda x: x == 0 or x >= 2, "num_codes")
        limits(0, 2**20, "num_codes")
        check("more than 0", lambda x: x > 0, "code_temperature")
        limits(0, 1e6, "code_temperature")
        _ = self.planner, self.executor  # which check their own sizes
        check(f"a token of {size}", lambda x: 0 <= x < size, "plan_id", "pad_id")

    def _transformer(self, layers: int, length: int, causal: bool) -> TransformerConfig:
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(LanguageModelConfig)}
        return TransformerConfig(
            **{**shared, "max_length": length},
            num_layers=layers,
            norm="rms",
            norm_eps=1e-6,
            bias=False,
            causal=causal,
        )

    @property
    def planner(self) -> TransformerConfig:
        return self._transformer(self.planner_layers, self.planner_length, causal=False)

    @property
    def executor(self) -> TransformerConfig:
        length = self.max_length + self.num_plans
        return self._transformer(self.executor_layers, length, causal=True)

    @property
    def weight_bytes(self) -> int:
        """What the parameters take, float32, and the tables of positions; less the biases."""
        plans = self.plan_size * (self.num_plans if self.pooling == "mean" else 1)
        own = self.hidden_size * (plans + self.plan_size) + self.num_codes * self.plan_size
        return self.planner.weight_bytes + self.executor.weight_bytes + 4 * own


class Plan(struct.PyTreeNode):
    """Plan vectors, and the logits of their codes; None where plans are continuous."""

    vectors: Float[Array, "B M E"]
    logits: Float[Array, "B M K"] | None


def weave(
    values: Shaped[Array, "B S"], split: Int[Array, " B"], count: int, fill: Any
) -> Shaped[Array, "B T"]:
    """Puts `count` times `fill` in front of position split[b] of each row."""
    places = jnp.arange(values.shape[1] + count)
    before = places < split[:, None]
    source = jnp.where(before, places, places - count)
    taken = jnp.take_along_axis(values, jnp.clip(source, 0, values.shape[1] - 1), axis=1)
    return jnp.where(before | (places >= split[:, None] + count), taken, fill)


def prompt_of(
    tokens: Int[Array, "B S"], split: Int[Array, " B"], length: int, pad_id: int
) -> tuple[Int[Array, "B P"], Int[Array, " B"]]:
    """The last tokens, `length` at most, before each row's split, padded; and how many they are."""
    taken = jnp.minimum(split, length)
    places = (split - taken)[:, None] + jnp.arange(min(length, tokens.shape[1]))
    prompt = jnp.take_along_axis(tokens, jnp.minimum(places, tokens.shape[1] - 1), axis=1)
    return jnp.where(places < split[:, None], prompt, pad_id), taken


def text_before(
    tokens: Int[Array, "B P"], end_id: int, least: Int[Array, " B"], pad_id: int
) -> tuple[Int[Array, "B P"], Int[Array, " B"]]:
    """What follows the last end of a text in each row, but nothing before its place `least`,
    padded; and how many tokens that are. Where there are none, it is one PAD."""
    places = jnp.arange(tokens.shape[1])
    ended = jnp.max(jnp.where(tokens == end_id, places + 1, 0), axis=1)
    first = jnp.maximum(ended, least)
    count = tokens.shape[1] - first
    source = jnp.minimum(first[:, None] + places, tokens.shape[1] - 1)
    text = jnp.take_along_axis(tokens, source, axis=1)
    return jnp.where(places < count[:, None], text, pad_id), jnp.maximum(count, 1)


class Planner(nn.Module):
    """From text to plan vectors."""

    config: PlannerExecutorConfig
    train: bool = False

    def setup(self) -> None:
        c = self.config
        self.encoder = Transformer(c.planner, self.train)
        self.drop = nn.Dropout(c.dropout, deterministic=not self.train)
        size = c.plan_size * (c.num_plans if c.pooling == "mean" else 1)
        self.project = Dense(size, kernel_init=nn.initializers.lecun_normal())
        if c.num_codes:
            shape = (c.num_codes, c.plan_size)
            self.codebook = self.param("codebook", nn.initializers.normal(1.0), shape)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        lengths: Int[Array, " B"],
        noise: PRNGKeyArray | None = None,
        temperature: Float[Array, ""] | float = 1.0,
    ) -> Plan:
        """Reads texts, padded at their ends, and decides.

        `noise` is the key of the Gumbel noise with which codes are tried in training; None takes
        the likeliest code. The temperature is of the relaxed choice, whose gradient is used.
        """
        c = self.config
        x, _ = self.encoder.hidden(tokens, lengths=lengths)
        parts = c.num_plans if c.pooling == "parts" else 1
        bounds = lengths[:, None] * jnp.arange(parts + 1) // parts  # of a short text parts overlap
        first, last = bounds[:, :-1], jnp.maximum(bounds[:, 1:], bounds[:, :-1] + 1)
        places = jnp.arange(tokens.shape[1])
        inside = (places >= first[..., None]) & (places < last[..., None])
        inside = (inside & (places < lengths[:, None, None])).astype(jnp.float32)  # [B, parts, S]
        pooled = jnp.einsum(
            "bps,bsd->bpd", inside, x.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
        )
        pooled = self.drop(pooled / jnp.maximum(inside.sum(-1, keepdims=True), 1))
        plan = self.project(pooled).reshape(-1, c.num_plans, c.plan_size)
        if not c.num_codes:
            return Plan(plan, None)

        def unit(v: Array) -> Array:
            return v / (jnp.linalg.norm(v, axis=-1, keepdims=True) + 1e-6)

        logits = unit(plan) @ unit(self.codebook).T / c.code_temperature
        tried = logits
        if noise is not None:
            tried = logits + jax.random.gumbel(noise, logits.shape, logits.dtype)
        soft = jax.nn.softmax(tried / temperature, axis=-1)
        chosen = jax.nn.one_hot(jnp.argmax(tried, axis=-1), c.num_codes, dtype=soft.dtype)
        return Plan((chosen + soft - jax.lax.stop_gradient(soft)) @ self.codebook, logits)


class PlannerExecutor(nn.Module):
    """Planner and executor. With `train`, activations are dropped, as in `Transformer`."""

    config: PlannerExecutorConfig
    train: bool = False

    def setup(self) -> None:
        c = self.config
        self.planner = Planner(c, self.train)
        self.plan_proj = Dense(c.hidden_size, kernel_init=nn.initializers.lecun_normal())
        self.executor = Transformer(c.executor, self.train)

    def __call__(
        self, tokens: Int[Array, "B S"], split: Int[Array, " B"], *noise: Any
    ) -> tuple[Float[Array, "B T V"], Plan]:
        """Plans from what is before `split`, and reads the text with the plan in front of the rest:
        logits of the token after each position of `weave(tokens, split, M, plan_id)`, and the plan.
        """
        plan = self.plan(tokens, split, *noise)
        return self.execute(tokens, split, plan.vectors), plan

    def plan(self, tokens: Int[Array, "B S"], split: Int[Array, " B"], *noise: Any) -> Plan:
        """The plan that follows from what is before `split`; `noise` as of `Planner`."""
        prompt, lengths = prompt_of(tokens, split, self.config.planner_length, self.config.pad_id)
        return self.planner(prompt, lengths, *noise)

    def execute(
        self,
        tokens: Int[Array, "B S"],
        split: Int[Array, " B"],
        vectors: Float[Array, "B M E"],
        shown: Bool[Array, " B"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of the token after each position of the text with the plan in front of `split`.

        Rows that are not `shown` the plan have bare PLAN tokens.
        """
        c = self.config
        if not c.executor_sees_prompt:
            hidden = jnp.arange(tokens.shape[1]) < split[:, None]
            tokens = jnp.where(hidden, c.pad_id, tokens)
        woven = weave(tokens, split, c.num_plans, c.plan_id)
        return self.executor(woven, added=self.added(woven.shape[1], split, vectors, shown))

    def added(
        self,
        length: int,
        split: Int[Array, " B"],
        vectors: Float[Array, "B M E"],
        shown: Bool[Array, " B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """What the plan adds to the embeddings of a woven text of `length` tokens."""
        projected = self.plan_proj(vectors)
        if shown is not None:
            projected = jnp.where(shown[:, None, None], projected, 0)
        offset = jnp.arange(length) - split[:, None]
        inside = (offset >= 0) & (offset < self.config.num_plans)
        index = jnp.clip(offset, 0, self.config.num_plans - 1)[..., None]
        return jnp.where(inside[..., None], jnp.take_along_axis(projected, index, axis=1), 0)
