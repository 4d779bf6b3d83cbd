"""A trained language model, ready to write."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hrm_jax.compilation import jit
from hrm_jax.data.text.tokenizers import Tokenizer, prompt_tokens, suppressed_tokens
from hrm_jax.engine.decoder import Adapters, Decoder
from hrm_jax.engine.engine import Completion, Engine, Event, Sampling
from hrm_jax.engine.requests import PromptTooLong
from hrm_jax.models.planner_executor import PlannerExecutor, PlannerExecutorConfig
from hrm_jax.models.transformer import TransformerConfig, unstack_layers


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A Transformer or planner–executor with its weights."""

    config: TransformerConfig | PlannerExecutorConfig
    variables: Mapping[str, Any]  # {"params": …}
    tokenizer: Tokenizer
    tokenizer_name: str = "bytes"  # what `load_tokenizer` takes for it
    name: str = ""
    chat_template: str = ""  # Jinja, in Hugging Face's form; "" takes the server's
    adapters: Adapters = dataclasses.field(default_factory=dict)  # that `decoder` serves by name

    @functools.cached_property
    def decoder(self) -> Decoder:
        return self._decoder()

    def _decoder(self) -> Decoder:
        params, config, prepare = self.variables["params"], self.config, None
        if isinstance(config, PlannerExecutorConfig):
            if self.adapters:
                raise ValueError("adapters: a planner–executor is served without; merge them")
            params, config, prepare = params["executor"], config.executor, self._prepare
        adapters = self.adapters
        if config.scan_layers:  # separate layers are faster one token at a time
            params = unstack_layers(params)
            adapters = {name: (kind, _unstacked(x)) for name, (kind, x) in adapters.items()}
            config = dataclasses.replace(config, scan_layers=False)
        never = suppressed_tokens(self.tokenizer)
        more: Any = {"name": self.name, "adapters": adapters}
        return Decoder(config, params, self.tokenizer, never, prepare, self.chat_template, **more)

    @functools.cached_property
    def engine(self) -> Engine:
        """An engine for one text at a time."""
        return Engine(self.decoder, slots=1)

    def generate(self, prompt: str | Sequence[int], **sampling: Any) -> Completion:
        """Continues a prompt, see `Engine.submit`; `sampling` are fields of
        `hrm_jax.engine.engine.Sampling`."""
        return self.engine.generate(prompt, **sampling)

    def stream(self, prompt: str | Sequence[int], **sampling: Any) -> Iterator[Event]:
        """Continues a prompt, token by token; `sampling` as for `generate`."""
        self.engine.start()
        yield from self.engine.submit(prompt, Sampling(**sampling))

    def plan(self, prompt: str) -> tuple[int, ...]:
        """The codes that the planner takes for a prompt; `ValueError` without a codebook."""
        config = self.config
        if not isinstance(config, PlannerExecutorConfig) or not config.num_codes:
            raise ValueError("this model has no codebook of plans")
        tokens = prompt_tokens(self.tokenizer, prompt)
        if not tokens:
            raise ValueError("prompt: empty, and the tokenizer has no token to begin with")
        _, logits = self._planned(self._divided(tokens)[0])
        return tuple(int(code) for code in np.argmax(logits, axis=-1))

    def _divided(self, tokens: list[int]) -> tuple[list[int], list[int]]:
        """What the planner reads of a prompt, and what the executor does.

        Where plans are made of the text before, the executor has the end of the prompt, half of its
        positions, the planner what is before that and behind the end of another text. What is too
        long for the planner is the executor's; `PromptTooLong` where it is too long for both.
        """
        config: Any = self.config
        if config.plans_from == "prompt":
            return tokens, tokens
        most = config.planner_length + config.max_length - 1
        if len(tokens) > most:
            raise PromptTooLong(
                f"prompt: expected at most {most} tokens, the planner's {config.planner_length} "
                f"and what leaves an answer room in {config.max_length}, got {len(tokens)}"
            )
        ahead = max(0, min(len(tokens) - config.max_length // 2, config.planner_length))
        ends = [i for i in range(ahead) if tokens[i] == self.tokenizer.eos_id]
        first = ends[-1] + 1 if ends else 0
        return tokens[first:ahead] or [config.pad_id], tokens[ahead:]

    def _prepare(self, tokens: list[int]) -> tuple[list[int], np.ndarray]:
        """The woven prompt as in training, and what the plan adds to it."""
        config: Any = self.config
        read, tokens = self._divided(tokens)
        projected, _ = self._planned(read)
        place = len(tokens) if config.plans_from == "prompt" else 0
        added = np.zeros((len(tokens) + config.num_plans, config.hidden_size), np.float32)
        added[place : place + config.num_plans] = projected
        if config.plans_from == "prompt" and not config.executor_sees_prompt:
            tokens = [config.pad_id] * len(tokens)
        return [*tokens[:place], *[config.plan_id] * config.num_plans, *tokens[place:]], added

    def _planned(self, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Projected plan vectors [M, D] and logits of the codes [M, K] ([M, 0] without codes)."""
        config: Any = self.config
        read = tokens[-config.planner_length :]
        padded = np.full((1, config.planner_length), config.pad_id, np.int32)
        padded[0, : len(read)] = read
        projected, logits = self._plan_step(
            self.variables["params"], padded, np.array([len(read)], np.int32)
        )
        return np.asarray(projected[0]), np.asarray(logits[0])

    @functools.cached_property
    def _plan_step(self) -> Any:
        model = PlannerExecutor(self.config)  # type: ignore[arg-type]

        def step(params: Any, tokens: jax.Array, lengths: jax.Array) -> Any:
            bound = model.bind({"params": params})
            plan = bound.planner(tokens, lengths)
            logits = plan.vectors[..., :0] if plan.logits is None else plan.logits
            return bound.plan_proj(plan.vectors).astype(jnp.float32), logits

        return jit(step)


def _unstacked(adapters: Mapping[str, Any]) -> dict[str, Any]:
    return {k: unstack_layers(v) if "layers" in v else v for k, v in adapters.items()}
