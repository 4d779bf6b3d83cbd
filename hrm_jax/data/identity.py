"""Which data a run was trained on, small enough to be kept inside every checkpoint."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any, Protocol

from hrm_jax import files
from hrm_jax.data.errors import DataError


class Data(Protocol):
    """Data of any kind that can be told from others."""

    def digest(self) -> str:
        """Returns a SHA-256 of all that counts."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What identifies a built data set."""

    builder: str  # `sudoku`, for instance
    version: str  # of the builder
    seed: int | None  # None where nothing was drawn
    counts: dict[str, int]  # sizes by name, for instance `{"train examples": 1000}`
    sha256: dict[str, str]  # by split
    frozen: str = ""  # digest of weights that are never trained; "" where there are none

    @classmethod
    def of(
        cls,
        builder: str,
        version: str,
        seed: int | None,
        counts: dict[str, int],
        train: Data,
        test: Data,
    ) -> Identity:
        """The identity of a pair of sets, with the digests of both."""
        return cls(builder, version, seed, counts, {"train": train.digest(), "test": test.digest()})

    def write(self, folder: pathlib.Path) -> None:
        """Writes `identity.json` into a data set's folder."""
        files.write_text(folder / "identity.json", self.to_json() + "\n")

    def to_json(self) -> str:
        """One JSON object; `from_json` inverts it."""
        values = dataclasses.asdict(self)
        if not self.frozen:
            del values["frozen"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Identity:
        """Parses what `to_json` wrote; a `DataError` names what is wrong."""
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"data identity: not valid JSON: {error.msg}") from error
        kinds: dict[str, Any] = dict.fromkeys(("builder", "version", "frozen"), str)
        kinds |= {"seed": int | None, "counts": dict, "sha256": dict}
        if not isinstance(value, dict) or {*value, "frozen"} != set(kinds):
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"data identity: expected the fields {sorted(kinds)}, found {found}")
        value = {"frozen": "", **value}
        for name, kind in kinds.items():
            of: Any = {"counts": int, "sha256": str}.get(name, object)
            inner = value[name].values() if isinstance(value[name], dict) else ()
            if not isinstance(value[name], kind) or not all(isinstance(x, of) for x in inner):
                raise DataError(f"data identity: {name} is {value[name]!r}, expected {kind}")
        return cls(**value)

    def differences(self, other: Identity) -> list[str]:
        """Returns one line `field: a != b` per difference; empty where both are the same data."""
        mine, theirs = _flat(self), _flat(other)
        both = {x: (mine.get(x, "absent"), theirs.get(x, "absent")) for x in {**mine, **theirs}}
        return [f"{name}: {one} != {two}" for name, (one, two) in both.items() if one != two]


def _flat(identity: Identity) -> dict[str, Any]:
    """The fields, with those of `counts` and `sha256` as `counts.train` and the like."""
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(identity).items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat
