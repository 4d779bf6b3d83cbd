"""Language models of running text."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, PRNGKeyArray

from hrm_jax.data.identity import Identity
from hrm_jax.data.pipeline import batch_iterator
from hrm_jax.data.text.branches import packaged_branches
from hrm_jax.data.text.corpus import TextWindows, eval_windows, split_documents
from hrm_jax.data.text.embedded import spanish_documents
from hrm_jax.data.text.overlap import report_shared_documents
from hrm_jax.data.text.reader import Documents, read_documents
from hrm_jax.data.text.token_arrays import TokenDocuments, read_token_array
from hrm_jax.data.text.tokenizers import Tokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, require
from hrm_jax.models.planner_executor import text_before
from hrm_jax.tasks.language.report import SAMPLES
from hrm_jax.tasks.language.task import LanguageConfig, LanguageTask, Rows

_SAMPLE_TOKENS = 160
_ARRAY = ".npy"
_BRANCHES = "branches"

AnyText = Documents | TokenDocuments
_EVAL_SEED = 0  # of the held-out windows that are scored
_SHORTER = 0.1  # share of training windows in front of which the planner reads less than it could


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Running text, read from files."""

    # Files, folders or patterns with commas between them (.txt, .jsonl, either may be .gz); ""
    # takes the Spanish novels that come with the package, "branches" the answers of the branches
    # that do ("./branches" is a folder of one's own). Or one .npy with tokens of the tokenizer,
    # [N], or [rows, N], each row a document; without `test` the end of [N] is kept aside.
    train: str = ""
    test: str = ""  # the same, held out; "" keeps whole documents of the training text aside
    held_out: float = 0.05  # share of the documents that are kept aside
    document: Literal["file", "line", "blank_line"] = "file"  # what is one in .txt files
    json_field: str = "text"  # with the text in .jsonl files
    strict: bool = False  # whether bytes that are not UTF-8 are an error
    # Most bytes that a .gz may unpack to; 0 for 200 times its own, and 64 MiB at least.
    max_unpacked: int = 0

    def unused(self) -> dict[str, str]:
        found = {}
        files = {self.train, self.test} - {"", _BRANCHES}
        if all(x.endswith(_ARRAY) for x in files):
            names = ("document", "json_field", "strict", "max_unpacked")
            found = dict.fromkeys(names, "no text is read from files")
        if self.test:
            found["held_out"] = "data.test is given"
        elif not self.train:
            found["held_out"] = "the novels that come with the package have held-out text"
        return found

    def __post_init__(self) -> None:
        require(0 < self.held_out < 1, f"data.held_out: expected 0 < x < 1, got {self.held_out}")
        require(
            self.max_unpacked >= 0,
            f"data.max_unpacked: expected 0 or more, got {self.max_unpacked}",
        )

    def documents(self, tokenizer: Tokenizer) -> tuple[AnyText, AnyText]:
        """Training and held-out documents; those of a file that are in both are told of."""
        tokens = self.train.endswith(_ARRAY)
        require(
            not self.test or self.test.endswith(_ARRAY) == tokens,
            f"data.test: {self.test}: expected {'tokens' if tokens else 'text'}, as data.train has",
        )
        if not tokens:
            return self._texts()
        train = read_token_array(self.train, tokenizer)
        if self.test:
            return train, read_token_array(self.test, tokenizer)
        if len(train) == 1:
            return train.divided(self.held_out)
        return split_documents(train, self.held_out, seed=0)

    def _texts(self) -> tuple[Documents, Documents]:
        test: Documents | None = None
        if self.train == _BRANCHES:
            train = read_documents([str(packaged_branches())], json_field="output")
        elif self.train:
            train = self._read(self.train)
        else:
            train, test = spanish_documents()
        if self.test:
            test = self._read(self.test)
            report_shared_documents(train, test)
        return (train, test) if test else split_documents(train, self.held_out, seed=0)

    def read(self, paths: str, tokenizer: Tokenizer) -> AnyText:
        """The documents of files with commas between them, or of a .npy with tokens."""
        if paths.endswith(_ARRAY):
            return read_token_array(paths, tokenizer)
        return self._read(paths)

    def _read(self, paths: str) -> Documents:
        return read_documents(
            [p.strip() for p in paths.split(",")],
            json_field=self.json_field,
            document=self.document,
            strict=self.strict,
            max_unpacked=self.max_unpacked,
        )


@dataclasses.dataclass(frozen=True)
class TextData(TextFiles):
    """Running text in windows."""

    tokenizer: str = "bytes"  # or a tokenizer.json of Hugging Face's or its folder
    length: int = 512  # tokens of a window
    eval_stride: int = 256  # new tokens of a held-out window; those before are context
    eval_windows: int = 512  # how many held-out windows are scored at most; 0 for all

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.eval_stride < self.length,
            f"data.eval_stride: expected 1 to data.length - 1, got {self.eval_stride}",
        )
        require(
            self.eval_windows >= 0,
            f"data.eval_windows: expected 0 or more, got {self.eval_windows}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(LanguageConfig):
    """Fields of the config of `TextTask`.

    Attributes:
        from_json: File with TenMinaTorc's fields, which are taken in place of these; see
            `hrm_jax.tasks.language.tenminatorc`. It is "" again in what a run keeps.
    """

    from_json: str = ""
    data: TextData = TextData()
    best_metric: str = ""


class TextTask(LanguageTask):
    """Running text: every token of a window counts; the plan stands somewhere in its middle."""

    unit = "windows"
    example = "En un lugar de la Mancha"

    def __init__(
        self,
        config: TextConfig,
        data_cache: pathlib.Path | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, data_cache, variables)
        if config.model.max_length < config.data.length:
            raise ConfigError(
                f"data.length: {config.data.length} tokens, but model.max_length is "
                f"{config.model.max_length}"
            )

    @property
    def before(self) -> int:
        """How many tokens in front of a window the planner reads, and it alone."""
        model = self.config.model
        from_before = self.planned and model.plans_from == "before"
        return model.planner_length if from_before else 0

    @functools.cached_property
    def documents(self) -> tuple[AnyText, AnyText]:
        """Training and held-out documents."""
        return self.config.data.documents(self.tokenizer)

    def _text(self, documents: AnyText) -> Documents:
        tokens = isinstance(documents, TokenDocuments)
        return documents.decoded(self.tokenizer) if tokens else documents  # type: ignore[union-attr,return-value]

    @functools.cached_property
    def identity(self) -> Identity:
        train, test = self.documents
        unit = "tokens" if isinstance(train, TokenDocuments) else "bytes"
        return Identity.of(
            builder="text",
            version="1",
            seed=None,
            counts={
                "training_documents": len(train),
                f"training_{unit}": len(train.tokens),
                "held_out_documents": len(test),
                f"held_out_{unit}": len(test.tokens),
            },
            train=train,
            test=test,
        )

    def batches(self) -> grain.DatasetIterator:
        config = self.config
        source = TextWindows(
            self.documents[0],
            self.tokenizer,
            config.data.length,
            config.batch_size,
            config.seed,
            jax.process_index(),
            jax.process_count(),
            before=self.before,
        )
        return batch_iterator(source)

    def rows(self, batch: Mapping[str, Array], key: PRNGKeyArray | None) -> Rows:
        """The plan goes in front of a random token, or in evaluation of the first new one; one of
        the text before goes in front of the window."""
        tokens = batch["tokens"]
        count, length = tokens.shape
        if self.before:
            return self._behind(tokens, batch.get("counted"), key)
        if key is None:
            split = jnp.full(count, self.config.data.length - self.config.data.eval_stride)
            return {"tokens": tokens, "split": split, "counted": batch["counted"]}
        split = jax.random.randint(key, (count,), 1, max(2, 3 * length // 4))
        return {"tokens": tokens, "split": split, "counted": jnp.ones(tokens.shape, bool)}

    def _behind(self, tokens: Array, counted: Array | None, key: PRNGKeyArray | None) -> Rows:
        """Windows behind the text of which their plans are made; in training that is now and then
        shorter, as at the beginning of a document."""
        count, least = len(tokens), jnp.zeros(len(tokens), jnp.int32)
        if key is not None:
            chance, draw = jax.random.split(key)
            shorter = jax.random.bernoulli(chance, _SHORTER, (count,))
            least = shorter * jax.random.randint(draw, (count,), 0, self.before + 1)
        pad = self.config.model.pad_id
        window = tokens[:, self.before :]
        everything = jnp.ones(window.shape, bool)
        return {
            "tokens": window,
            "split": jnp.zeros(count, jnp.int32),
            "counted": everything if counted is None else counted[:, self.before :],
            "planned": text_before(tokens[:, : self.before], self.end_id, least, pad),
        }

    def held_out(
        self, source: str | None = None, limit: int | None = None
    ) -> tuple[Mapping[str, npt.NDArray[Any]], float]:
        """Windows of held-out text, drawn once and for all, and bytes per token."""
        data = self.config.data
        if source is None and "documents" not in vars(self):
            source = self.kept
        documents = self.documents[1] if source is None else data.read(source, self.tokenizer)
        tokens, counted = eval_windows(
            documents, self.tokenizer, data.length, data.eval_stride, self.before
        )
        limit = data.eval_windows if limit is None else limit
        order = np.random.default_rng(_EVAL_SEED).permutation(len(tokens))[: limit or None]
        bytes_per_token = len(self._text(documents).tokens) / max(int(counted.sum()), 1)
        return {"tokens": tokens[order], "counted": counted[order]}, bytes_per_token

    def held_out_records(self) -> Iterator[dict[str, str]]:
        test = self._text(self.documents[1])
        return ({self.config.data.json_field: test.text(i)} for i in range(len(test)))

    def samples(self, model: LanguageModel) -> list[str]:
        """How held-out texts go on after a few words, and the text before where it is planned
        from."""
        length = min(64, self.config.data.length // 4)
        room = min(_SAMPLE_TOKENS, self.config.data.length - length - 2)
        more = 0
        if self.before:
            seen = self.config.model.max_length // 2
            room, more = min(room, seen - 1), max(0, self.before + seen - length)
        test = self._text(self.documents[1])
        lines = []
        for i in range(SAMPLES):
            document = test[i % len(test)]
            place = len(document) * (i + 1) // (SAMPLES + 1)
            first = document.find(b" ", place) + 1
            shown, unseen = document[first : first + length], document[max(0, first - more) : first]
            prompt = (unseen + shown).decode(errors="ignore")
            text = model.generate(prompt, temperature=0.7, max_new_tokens=room, seed=i).text
            prompt = shown.decode(errors="ignore")
            lines.append(f"  {prompt!r} → {text!r}")
        return lines
