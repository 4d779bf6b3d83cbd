"""Language models that answer prompts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Int, PRNGKeyArray

from hrm_jax.compilation import jit
from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.text.numbers import number_pairs
from hrm_jax.data.text.overlap import report_shared_pairs
from hrm_jax.data.text.pairs import PairBatches, Pairs, encode_pairs, read_pairs
from hrm_jax.data.text.tokenizers import around, suppressed_tokens
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, require, require_fields
from hrm_jax.models.decoding import greedy
from hrm_jax.models.planner_executor import PlannerExecutorConfig, weave
from hrm_jax.tasks.language.report import SAMPLES
from hrm_jax.tasks.language.task import LanguageConfig, LanguageTask, Rows


@dataclasses.dataclass(frozen=True)
class PairData:
    r"""Prompts and their targets."""

    train: str = ""  # file of prompt⟨TAB⟩target lines, or .jsonl; "" makes Spanish number words
    test: str = ""  # the same, held out
    prompt_field: str = "prompt"  # of .jsonl records
    target_field: str = "target"  # both also of a TSV whose first line names columns
    max_unpacked: int = 0  # as in `TextData`
    tokenizer: str = "bytes"  # as in `TextData`
    # Most tokens of each, with the EOS of the target; 0 takes those of the longest in the data.
    prompt_length: int = 0
    target_length: int = 0
    too_long: Literal["refuse", "drop"] = "refuse"  # longer pairs
    eval_pairs: int = 512  # how many held-out pairs are scored at most; 0 for all
    numbers_below: int = 1_000_000  # the numbers made are from 0 to below this
    num_train: int = 20_000  # how many numbers are made
    num_test: int = 1000
    seed: int = 0  # of the numbers made

    def __post_init__(self) -> None:
        require(
            bool(self.train) == bool(self.test),
            "data.test: expected a held-out file where, and only where, data.train is given",
        )
        require_fields(self, "data", "at least 1", lambda x: x >= 1, "num_train", "num_test")
        lengths = ("prompt_length", "target_length", "eval_pairs", "max_unpacked")
        require_fields(self, "data", "0 or more", lambda x: x >= 0, *lengths)

    def pairs(self) -> tuple[Pairs, Pairs]:
        """Training and held-out pairs; those of files that are in both are told of."""
        if not self.train:
            return number_pairs(self.numbers_below, self.num_train, self.num_test, self.seed)
        train, test = self.read(self.train), self.read(self.test)
        report_shared_pairs(train, test)
        return train, test

    def read(self, path: str) -> Pairs:
        return read_pairs(
            path,
            prompt_field=self.prompt_field,
            target_field=self.target_field,
            max_unpacked=self.max_unpacked,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairConfig(LanguageConfig):
    """Fields of the config of `PairTask`."""

    data: PairData = PairData()
    best_metric: str = "eval/exact_match"

    def unused(self) -> dict[str, str]:
        found = super().unused()
        if getattr(self.model, "plans_from", "prompt") != "prompt":
            found["model.plans_from"] = "nothing is before a prompt"
        return found


class PairTask(LanguageTask):
    """Prompts and targets: the target and its EOS count."""

    unit = "pairs"
    example = "1234"

    @classmethod
    def with_sizes(cls, config: Any, sizes: Any) -> Any:
        """As of other texts; plans are made of the prompt."""
        config = super().with_sizes(config, sizes)
        if not isinstance(config.model, PlannerExecutorConfig):
            return config
        model = dataclasses.replace(config.model, plans_from="prompt")
        return dataclasses.replace(config, model=model)

    @functools.cached_property
    def pairs(self) -> tuple[Pairs, Pairs]:
        """Training and held-out pairs."""
        return self.config.data.pairs()

    @functools.cached_property
    def identity(self) -> Identity:
        data = self.config.data
        train, test = self.pairs
        return Identity.of(
            builder="pairs",
            version="1",
            seed=None if data.train else data.seed,
            counts={"training_pairs": len(train), "held_out_pairs": len(test)},
            train=train,
            test=test,
        )

    def lengths(self, *sets: Pairs) -> tuple[int, int]:
        """Room for the prompts and targets of some pairs, in tokens; `ConfigError` where the model
        has not so many positions."""
        data, positions = self.config.data, self.config.model.max_length
        prompt, target = data.prompt_length, data.target_length
        encode, (prefix, suffix) = self.tokenizer.encode, around(self.tokenizer)
        if not prompt:
            prompt = max(len(encode(text)) for pairs in sets for text in pairs.prompts)
            prompt += len(suffix)
        if not target:
            target = max(len(encode(text)) + 1 for pairs in sets for text in pairs.targets)
        if len(prefix) + prompt + target > positions:
            raise ConfigError(
                f"model.max_length: {positions}, but prompts and targets have up to "
                f"{len(prefix) + prompt + target} tokens; a smaller data.prompt_length or "
                "data.target_length with data.too_long=drop leaves out the longest"
            )
        return prompt, target

    def batches(self) -> grain.DatasetIterator:
        config = self.config
        source = PairBatches(
            self.pairs[0],
            self.tokenizer,
            *self.lengths(*self.pairs),
            config.batch_size,
            config.seed,
            jax.process_index(),
            jax.process_count(),
            too_long=config.data.too_long,
        )
        return batch_iterator(source)

    def rows(self, batch: Mapping[str, Array], key: PRNGKeyArray | None) -> Rows:
        """The prompt as the model is shown it, BOS in front if the tokenizer says so, where the
        plan is put, then the target, all that counts."""
        first, last = batch["prompt_length"], batch["target_length"]
        start = jnp.asarray(around(self.tokenizer)[0], jnp.int32)
        places = jnp.arange(len(start) + batch["prompt"].shape[1] + batch["target"].shape[1])
        start_rows = jnp.broadcast_to(start, (first.shape[0], len(start)))
        prompt = jnp.concatenate([start_rows, batch["prompt"]], axis=1)
        split = first + len(start)

        def at(values: Array, index: Array) -> Array:
            return jnp.take_along_axis(values, jnp.clip(index, 0, values.shape[1] - 1), axis=1)

        behind = places - split[:, None]  # place in the target
        tokens = jnp.where(
            behind < 0,
            at(prompt, jnp.broadcast_to(places, behind.shape)),
            at(batch["target"], behind),
        )
        counted = (behind >= 0) & (behind < last[:, None])
        tokens = jnp.where(behind < last[:, None], tokens, self.pad_id)
        return {"tokens": tokens, "split": split, "counted": counted}

    def held_out(
        self, source: str | None = None, limit: int | None = None
    ) -> tuple[Mapping[str, npt.NDArray[Any]], float]:
        """The first held-out pairs; a token is taken for a byte."""
        data = self.config.data
        if source is None and "pairs" not in vars(self):
            source = self.kept
        pairs = self.pairs[1] if source is None else data.read(source)
        lengths = self.lengths(*(self.pairs if source is None else [pairs]))
        encoded = encode_pairs(pairs, self.tokenizer, *lengths, data.too_long)
        limit = data.eval_pairs if limit is None else limit
        return encoded.batch(np.arange(min(limit or len(encoded), len(encoded)))), 1.0

    def held_out_records(self) -> Iterator[dict[str, str]]:
        data, (_, test) = self.config.data, self.pairs
        for prompt, target in zip(test.prompts, test.targets, strict=True):
            yield {data.prompt_field: prompt, data.target_field: target}

    def samples(self, model: LanguageModel) -> list[str]:
        lines = []
        _, pairs = self.pairs
        for asked, wanted in list(zip(pairs.prompts, pairs.targets, strict=True))[:SAMPLES]:
            limit = len(self.tokenizer.encode(wanted)) + 8
            given = model.generate(asked, temperature=0.0, max_new_tokens=limit).text
            mark = "=" if given == wanted else "≠"
            lines.append(f"  {asked} → {given} {mark} {wanted}")
        return lines

    def score(
        self, params: Any, batch: Mapping[str, npt.NDArray[Any]], bytes_per_token: float
    ) -> dict[str, Any]:
        """The figures of every language task, and `eval/exact_match`.

        A match is a target that greedy decoding gives with its EOS, token by token. Bits are per
        token of the target for tokenizers other than bytes.
        """
        figures = super().score(params, batch, bytes_per_token)
        right = 0
        for rows, real in self._parts(batch):
            answers = np.asarray(self._answer(params, rows))
            width = np.arange(answers.shape[1]) < rows["target_length"][:, None]
            same = ((answers == rows["target"]) | ~width).all(axis=1)
            right += int((same & real).sum())
        return {
            "eval/exact_match": right / len(batch["prompt"]),
            **figures,
            "eval/pairs": len(batch["prompt"]),
        }

    @functools.cached_property
    def _answer(self) -> Any:
        return jit(self._answers)

    def _answers(self, params: Any, batch: Any) -> Int[Array, "B T"]:
        """Greedy targets."""
        rows = self.rows(batch, None)
        tokens, lengths = rows["tokens"], rows["split"]
        tokens = jnp.where(jnp.arange(tokens.shape[1]) < lengths[:, None], tokens, self.pad_id)
        tokens = tokens[:, : len(around(self.tokenizer)[0]) + batch["prompt"].shape[1]]
        config, added = self.config.model, None
        if self.planned:
            plan = self.apply(params, tokens, lengths, method="plan")
            if not config.executor_sees_prompt:
                tokens = jnp.full_like(tokens, config.pad_id)
            tokens = weave(tokens, lengths, config.num_plans, config.plan_id)
            added = self.apply(params, tokens.shape[1], lengths, plan.vectors, method="added")
            lengths, params = lengths + config.num_plans, params["executor"]
            config = config.executor
        return greedy(
            config,
            params,
            tokens,
            lengths,
            batch["target"].shape[1],
            self.end_id,
            added=added,
            suppressed=suppressed_tokens(self.tokenizer),
        )
