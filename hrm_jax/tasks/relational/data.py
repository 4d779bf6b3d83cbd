"""Which worlds a run is about, and how they are drawn."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from hrm_jax.data.identity import Identity
from hrm_jax.data.questions import family, sort_of_clevr
from hrm_jax.data.questions.base import Array, Questions, Worlds
from hrm_jax.fields import require_fields

VERSION = "1"


@dataclasses.dataclass(frozen=True)
class WorldData(abc.ABC):
    """Worlds that are drawn."""

    kind: ClassVar[str]
    """What the worlds are called."""

    num_train: int = 0  # training worlds; 0 draws others for each batch, for ever
    num_test: int = 1000  # held-out worlds, none of which training can draw
    shuffled: bool = True  # whether the objects come in any order, or always in the same
    seed: int = 0  # of all that is drawn before training

    def __post_init__(self) -> None:
        require_fields(self, "data", "at least 1", lambda x: x >= 1, "num_test")
        require_fields(self, "data", "0 or more", lambda x: x >= 0, "num_train", "seed")

    @property
    @abc.abstractmethod
    def questions(self) -> Questions: ...

    @abc.abstractmethod
    def draw(self, count: int, random: np.random.Generator, held_out: bool = False) -> Worlds:
        """Draws worlds of one part."""

    @abc.abstractmethod
    def inputs(self, worlds: Any) -> Array:
        """What the network is shown of worlds, [W, N, D] or images [W, H, W, 3]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one world's inputs."""
        return self.inputs(self.draw(1, np.random.default_rng(0))).shape[1:]

    def parts(self) -> tuple[Worlds | None, Worlds]:
        """Training worlds, if they are drawn in advance, and held-out ones."""
        train, test = (np.random.Generator(np.random.PCG64([self.seed, x])) for x in (0, 1))
        worlds = self.draw(self.num_train, train) if self.num_train else None
        return worlds, self.draw(self.num_test, test, held_out=True)

    def identity(self, train: Worlds | None, test: Worlds) -> Identity:
        """What identifies the parts, and that what is drawn in training is of this version."""
        fixed = {} if train is None else {"train": train}
        counts = {"training_worlds": self.num_train} if fixed else {}
        return Identity(
            builder=self.kind,
            version=VERSION,
            seed=self.seed,
            counts={**counts, "held_out_worlds": len(test), "questions": len(self.questions.texts)},
            sha256={name: x.digest() for name, x in {**fixed, "test": test}.items()},
        )


@dataclasses.dataclass(frozen=True)
class SceneData(WorldData):
    """Scenes of Sort-of-CLEVR."""

    kind: ClassVar[str] = "sort_of_clevr"

    shown: Literal["states", "pixels"] = "states"  # a vector for each object, or the image

    def unused(self) -> dict[str, str]:
        return {"shuffled": "pixels have no order"} if self.shown == "pixels" else {}

    @property
    def questions(self) -> Questions:
        return sort_of_clevr.questions()

    def draw(self, count: int, random: np.random.Generator, held_out: bool = False) -> Worlds:
        draw = sort_of_clevr.draw_scenes
        return draw(count, random, held_out=held_out, shuffled=self.shuffled)

    def inputs(self, worlds: Any) -> Array:
        return worlds.states() if self.shown == "states" else worlds.images()


@dataclasses.dataclass(frozen=True)
class FamilyData(WorldData):
    """Families of eight."""

    kind: ClassVar[str] = "family"

    @property
    def questions(self) -> Questions:
        return family.questions()

    def draw(self, count: int, random: np.random.Generator, held_out: bool = False) -> Worlds:
        return family.draw_families(count, random, held_out=held_out, shuffled=self.shuffled)

    def inputs(self, worlds: Any) -> Array:
        return worlds.states()
