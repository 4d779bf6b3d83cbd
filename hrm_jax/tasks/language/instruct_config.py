"""What instruction tuning is told: the records, the model, and how it is adapted."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar, Literal

from hrm_jax.data.text.branches import branch_folder, packaged_branches
from hrm_jax.data.text.instructions import (
    Instructions,
    read_instructions,
    split_instructions,
    without_prompts,
)
from hrm_jax.data.text.packing import TooLong
from hrm_jax.data.text.templates import Kind
from hrm_jax.fields import require, require_fields
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.base import RunConfig


@dataclasses.dataclass(frozen=True)
class InstructData:
    """Instructions and their answers.

    Attributes:
        train: Files of records (.jsonl, .jsonl.gz), folders with such files, or patterns, with
            commas between them; see `read_instructions`.
        test: The same, held out; "" keeps some of the training records aside. Training records
            with a prompt of these are left out.
        branch: In the place of `train`: a folder of `root`, with records in `training/data/`.
        root: Folder of the branches; "" takes those that come with the package.
        held_out: Share of the prompts that are kept aside.
        split_seed: Draws which.
        invalid: Whether invalid rows are an error, or left out with a warning.
        accept_json: Whether files may be JSON over several lines.
        max_unpacked: Most bytes that a .gz may unpack to; 0 for 200 times its own, and 64 MiB at
            least.
        template: How a model is asked: with headers in Spanish, or by its own chat template.
        length: Tokens of a row.
        too_long: Whether longer records lose the end of what they are about (their answer is
            kept whole, or the record is left out), are left out, or are an error.
        packing: Whether a row has as many records as fit into it; each is read as if alone.
    """

    train: str = ""
    test: str = ""
    branch: str = ""
    root: str = ""
    held_out: float = 0.1
    split_seed: int = 0
    invalid: Literal["refuse", "drop"] = "refuse"
    accept_json: bool = False
    max_unpacked: int = 0
    template: Kind = "spanish"
    length: int = 512
    too_long: TooLong = "truncate"
    packing: bool = True

    def unused(self) -> dict[str, str]:
        none = {} if self.branch else {"root": "data.branch is not set"}
        given = dict.fromkeys(("held_out", "split_seed"), "data.test is given")
        return {**none, **(given if self.test else {})}

    def __post_init__(self) -> None:
        require(0 < self.held_out < 1, f"data.held_out: expected 0 < x < 1, got {self.held_out}")
        require(self.max_unpacked >= 0, "data.max_unpacked: expected 0 or more")
        require(self.length >= 2, f"data.length: expected at least 2, got {self.length}")
        require(
            not (self.train and self.branch),
            "data.train and data.branch are both given; expected one of the two",
        )

    def read(self, paths: str, branch: str = "") -> Instructions:
        return read_instructions(
            paths,
            branch=branch,
            invalid=self.invalid,
            accept_json=self.accept_json,
            max_unpacked=self.max_unpacked,
        )

    def parts(self) -> tuple[Instructions, Instructions]:
        """Training and held-out records."""
        require(
            bool(self.train or self.branch),
            "data.train: expected a file of records; or data.branch, a branch",
        )
        paths = self.train
        if self.branch:
            root = pathlib.Path(self.root) if self.root else packaged_branches()
            paths = str(branch_folder(root, self.branch))
        found = self.read(paths, self.branch)
        if not self.test:
            return split_instructions(found, self.held_out, self.split_seed)
        test = self.read(self.test)
        train = without_prompts(found, test)
        require(len(train) > 0, "data.test: has all prompts of data.train")
        return train, test


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructConfig(RunConfig):
    """Fields of the config of `InstructTask`.

    Attributes:
        model: What is adapted: a folder of Hugging Face's, a workdir of a language model, or the
            name of a model that comes with the package.
        adapt: Whether adapters are trained (LoRA), or all weights.
        lora: The adapters.
        base_dtype: In what the frozen weights are kept: "int8" and "nf4" (QLoRA) are of the kernels
            of linear layers, see `hrm_jax.layers.packed`; the others then have `dtype`. Figures
            are those of that base, and what is exported belongs to the whole one.
        dtype: Computation dtype.
        remat: Whether activations inside a layer are computed again in the backward pass.
        end_weight: How many times the token that ends an answer and the one before it (a full
            stop, mostly) count in what is minimised: there are two to many others, and where
            answers are few they take longest to learn. Losses that are told do not have it.
        epochs: Times that each training row is seen, which gives the steps; 0 takes `steps`.
        eval_answers: How many held-out prompts are answered at an evaluation; 0 for all.
        eval_new_tokens: Tokens within which an answer is to end by itself.
    """

    free: ClassVar[tuple[str, ...]] = (
        *(*RunConfig.free, "model", "epochs", "eval_answers", "eval_new_tokens"),
    )

    data: InstructData = InstructData()
    model: str = "spanish-gpt2"
    adapt: Literal["lora", "full"] = "lora"
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    base_dtype: Literal["float32", "bfloat16", "int8", "nf4"] = "float32"
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    end_weight: float = 1.0
    epochs: int = 3
    eval_answers: int = 64
    eval_new_tokens: int = 256
    batch_size: int = 4
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    @property
    def base(self) -> str:
        """The model whose weights are read at each start of a run."""
        return self.model

    def unused(self) -> dict[str, str]:
        steps = {"steps": "config.epochs is set"} if self.epochs else {}
        why = "config.adapt is 'full': all weights are trained"
        full = dict.fromkeys(("lora", "base_dtype"), why) if self.adapt == "full" else {}
        return {**steps, **full, "init_from": "config.model is what it starts from"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(self, "config", "0 or more", lambda x: x >= 0, "epochs", "eval_answers")
        at_least_1 = ("eval_new_tokens", "end_weight")
        require_fields(self, "config", "at least 1", lambda x: x >= 1, *at_least_1)
