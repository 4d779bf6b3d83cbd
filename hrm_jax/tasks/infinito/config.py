"""What a run of INFINITO's language model is told."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar, Literal

from hrm_jax.fields import require, require_fields
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models.infinito import MemoryConfig, PhiConfig
from hrm_jax.optim.build import OptimizerConfig
from hrm_jax.tasks.base import RunConfig
from hrm_jax.tasks.language.text import TextFiles


@dataclasses.dataclass(frozen=True)
class StreamData(TextFiles):
    """Texts that are read on and on, segment by segment."""

    # "text", or "introductions": in the first segment of each text someone says a name, which is
    # asked for in its last; the rest is from the text, and does not count.
    kind: Literal["text", "introductions"] = "text"
    length: int = 256  # tokens of a segment
    segments: int = 4  # of an introduction
    eval_rows: int = 16  # held-out texts that are read side by side
    eval_segments: int = 16  # that are read of each, one after the other

    def unused(self) -> dict[str, str]:
        other = "eval_segments" if self.kind == "introductions" else "segments"
        return super().unused() | {other: f"data.kind is {self.kind!r}"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "data")
        check("at least 8", lambda x: x >= 8, "length")
        check("at least 2", lambda x: x >= 2, "segments", "eval_rows")
        check("at least 1", lambda x: x >= 1, "eval_segments")


@dataclasses.dataclass(frozen=True)
class MeterConfig:
    """What Φ is reported as: geometric integrated information of held-out states under projections
    that no objective has seen. It is never optimised.

    Attributes:
        dimensions: Of a projection, which are divided into two parts.
        projections: How many, of which the mean is told.
        seed: Of the projections and controls.
        shrinkage: Of correlations.
    """

    dimensions: int = 8
    projections: int = 8
    seed: int = 1000
    shrinkage: float = 0.01

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.meter")
        check("2, 4, … 32", lambda x: x in range(2, 33, 2), "dimensions")
        check("at least 1", lambda x: x >= 1, "projections")
        check("0 < x < 1", lambda x: 0 < x < 1, "shrinkage")
        check("0 or more", lambda x: x >= 0, "seed")


@dataclasses.dataclass(frozen=True)
class PlateauConfig:
    """A learning rate that falls where the training loss does not.

    Attributes:
        factor: By which it is multiplied; 1 never lowers it.
        window: Steps whose mean loss is looked at.
        patience: Windows without a lower loss after which it falls.
    """

    factor: float = 0.5
    window: int = 50
    patience: int = 2

    def unused(self) -> dict[str, str]:
        why = "plateau.factor is 1"
        return dict.fromkeys(("window", "patience"), why) if self.factor == 1 else {}

    def __post_init__(self) -> None:
        check = functools.partial(require_fields, self, "config.plateau")
        check("more than 0, at most 1", lambda x: 0 < x <= 1, "factor")
        check("at least 1", lambda x: x >= 1, "window", "patience")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfinitoConfig(RunConfig):
    """Fields of the config of `InfinitoTask`.

    Attributes:
        model: What is adapted: a folder of Hugging Face's, a workdir of a language model, or the
            name of a model that comes with the package.
        lora: Its adapters.
        memory: What is kept of earlier segments, and how it is read.
        phi: The Φ that is trained, and by which memories are written.
        lambda_phi: Weight, beside the nats per token, of how far Φ is outside of its band, squared.
            0 leaves it out.
        phi_low, phi_high: The band.
        meter: The Φ that is reported.
        plateau: How the learning rate falls.
        eval_samples: Held-out beginnings that are continued, for the share of what is repeated.
        eval_new_tokens: By so many tokens.
    """

    free: ClassVar[tuple[str, ...]] = (
        *(*RunConfig.free, "model", "meter", "eval_samples", "eval_new_tokens"),
        *("data.eval_rows", "data.eval_segments"),
    )

    data: StreamData = dataclasses.field(default_factory=StreamData)
    model: str = "spanish-gpt2"
    lora: LoraConfig = dataclasses.field(
        default_factory=lambda: LoraConfig(
            r=8, alpha=32.0, dropout=0.1, target_modules=("c_attn", "c_proj")
        )
    )
    memory: MemoryConfig = dataclasses.field(default_factory=MemoryConfig)
    phi: PhiConfig = dataclasses.field(default_factory=PhiConfig)
    lambda_phi: float = 0.6
    phi_low: float = 0.5
    phi_high: float = 1.0
    meter: MeterConfig = dataclasses.field(default_factory=MeterConfig)
    plateau: PlateauConfig = dataclasses.field(default_factory=PlateauConfig)
    eval_samples: int = 8
    eval_new_tokens: int = 128
    batch_size: int = 16
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)

    @property
    def base(self) -> str:
        """The model whose weights are read at each start of a run."""
        return self.model

    def unused(self) -> dict[str, str]:
        found = {"init_from": "config.model is what it starts from"}
        if not self.lambda_phi:
            found |= dict.fromkeys(("phi_low", "phi_high"), "lambda_phi is 0")
        if not self.eval_samples:
            found["eval_new_tokens"] = "eval_samples is 0"
        return found

    def __post_init__(self) -> None:
        super().__post_init__()
        check = functools.partial(require_fields, self, "config")
        check("0 or more", lambda x: x >= 0, "lambda_phi", "eval_samples")
        check("at least 4", lambda x: x >= 4, "eval_new_tokens")
        require(
            self.phi_low <= self.phi_high,
            f"config.phi_low: {self.phi_low} is more than phi_high {self.phi_high}",
        )
        require(
            self.phi.kind == "gaussian" or self.phi_low <= 1 or not self.lambda_phi,
            f"config.phi_low: {self.phi_low}, but phi.kind {self.phi.kind!r} ends at 1",
        )
        require(
            not (self.memory.slots and self.memory.parts > self.data.length),
            f"config.memory.parts: {self.memory.parts}, but data.length is {self.data.length}",
        )
