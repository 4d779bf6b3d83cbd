"""From a nested mapping (JSON, ml_collections) to frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import jax

T = TypeVar("T")


class ConfigError(ValueError):
    """A field of a config is unknown, missing, of the wrong type or out of range."""


def unknown_field(name: str, known: typing.Iterable[str]) -> str:
    """Returns the message for a field that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown config field {name!r}{hint} (known: {', '.join(known)})"


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        if len(kinds) > 1 and isinstance(value, Mapping):
            return _variant(value, kinds, where)
        return _convert(value, kinds[0], where)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(
                f"{where}: expected one of {', '.join(map(repr, args))}, got {value!r}"
            )
        return value
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a group of fields, got {value!r}")
        return from_mapping(typing.cast(type, kind), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(
            f"{where}: expected {kind.__name__}, got {value!r} ({type(value).__name__})"
        )
    return value


def _variant(value: Mapping[str, Any], kinds: list[Any], where: str) -> Any:
    """One of several dataclasses, told apart by their class attribute `variant`.

    Fields that only the others have are left out, so that a name alone can be changed.
    """
    by_name = {kind.variant: kind for kind in kinds}
    name = value.get("name", kinds[0].variant)
    if name not in by_name:
        expected = ", ".join(map(repr, by_name))
        raise ConfigError(f"{where}.name: expected one of {expected}, got {name!r}")
    fields = {kind: {f.name for f in dataclasses.fields(kind)} for kind in kinds}
    others = set().union(*fields.values(), {"name"}) - fields[by_name[name]]
    kept = {k: v for k, v in value.items() if k not in others}
    return from_mapping(by_name[name], kept, where)


def to_mapping(config: Any) -> dict[str, Any]:
    """The nested mapping that `from_mapping` turns into the given dataclass again."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    nested = {k: to_mapping(v) if dataclasses.is_dataclass(v) else v for k, v in values.items()}
    variant = getattr(type(config), "variant", None)
    return nested if variant is None else {"name": variant, **nested}


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Builds the dataclass `cls` from a nested mapping.

    Args:
        cls: A dataclass. Fields may be int, float, str, bool, `X | None`, `Literal`,
            `tuple[X, ...]`, another dataclass, or one of several dataclasses: then `name` in
            the group is the class attribute `variant` of the one that is meant (the first where it
            is absent), and fields that only the others have are left out.
        values: Field names to values; groups are mappings.
        where: What the mapping is called in messages.

    Returns:
        An instance of `cls`; fields that are absent take their defaults.

    Raises:
        ConfigError: A field is unknown (the nearest known one is named), missing, or of the wrong
            type. Errors raised by the `__post_init__` of `cls` come through as they are.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    for name in values:
        if name not in fields:
            raise ConfigError(unknown_field(f"{where}.{name}", fields))
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise ConfigError(f"{where}.{name}: missing, and it has no default")
    return cls(**{k: _convert(v, hints[k], f"{where}.{k}") for k, v in values.items()})


def choose_preset(preset: str, presets: typing.Sequence[str]) -> tuple[str, str]:
    """Which preset a config file takes, and a text for the reader that says why.

    Args:
        preset: What the user asked for after the colon; "" takes "laptop" where JAX finds no
            accelerator, "paper" where it does.
        presets: Those that there are.

    Raises:
        ValueError: There is no such preset.
    """
    why = "as asked"
    if not preset:
        accelerated = jax.default_backend() != "cpu"
        preset = "paper" if accelerated else "laptop"
        why = f"since JAX finds {'an' if accelerated else 'no'} accelerator"
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(presets)}")
    return preset, f"{preset}, {why}"


def require(condition: bool, message: str) -> None:
    """Raises `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)
