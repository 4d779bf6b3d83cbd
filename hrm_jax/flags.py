"""Command-line flags made of the fields of a dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from hrm_jax.paths import expanded

T = TypeVar("T")


def add_fields(parser: Any, kind: type, without: Collection[str] = ()) -> None:
    """Adds `--name` for each field, with its default and what its class says of it.

    A bool is given by the flag alone; several values are separated by commas. A field of text with
    the metadata `many` may be given again, and its texts are joined by commas.
    """
    hints, about = typing.get_type_hints(kind), describe_fields(kind)
    for field in dataclasses.fields(kind):
        if field.name in without:
            continue
        hint = hints[field.name]
        more: dict[str, Any] = {}
        parts = [part for part in typing.get_args(hint) if part not in (type(None), ...)]
        many = typing.get_origin(hint) is tuple
        if hint is bool:
            more["action"] = "store_true"
        elif field.metadata.get("many"):
            more |= {"action": "append", "type": expanded}
        elif many:
            more["metavar"] = "A,B,…"
            more["type"] = _separated(parts[0])
        else:
            more["type"] = parts[0] if parts else expanded if hint is str else hint
        default = None if field.metadata.get("many") else field.default
        text = about.get(field.name, "").replace("%", "%%")
        parser.add_argument(f"--{field.name}", default=default, help=text, **more)


def from_flags(kind: type[T], args: argparse.Namespace) -> T:
    """The dataclass that the flags of `add_fields` give."""
    fields: Any = dataclasses.fields(typing.cast(Any, kind))
    given = {
        f.name: getattr(args, f.name) for f in fields if getattr(args, f.name, None) is not None
    }
    return kind(**{name: ",".join(x) if isinstance(x, list) else x for name, x in given.items()})


def describe_fields(kind: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its bases say of its attributes."""
    about: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = (base.__doc__ or "").partition("Attributes:\n")[2].split("\n\n")[0]
        for names, text in re.findall(r"^ {8}(\w[\w, ]*): (.*(?:\n {12}.*)*)", section, re.M):
            about |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return about


def _separated(kind: type) -> Any:
    def values(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(","))

    return values
