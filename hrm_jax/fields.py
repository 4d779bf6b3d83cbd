"""From a nested mapping (JSON, ml_collections) to frozen dataclasses."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import os
import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax

from hrm_jax.paths import expanded

T = TypeVar("T")


class ConfigError(ValueError):
    """A field of a config is unknown, missing, of the wrong type or out of range."""


_short = reprlib.Repr()
_short.maxlevel = 2
_short.maxstring = _short.maxother = _short.maxlong = 100


def shown(value: Any) -> str:
    """A value for a message, cut where it is long: what a file holds can be endless."""
    try:
        return _short.repr(value)
    except (ValueError, RecursionError):  # an integer too long to be written, groups too deep
        return f"one {type(value).__name__}"


def unknown_field(name: str, known: typing.Iterable[str]) -> str:
    """Returns the message for a field that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown config field {name!r}{hint} (known: {', '.join(known)})"


def _convert(value: Any, kind: Any, where: str, preset: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, int) and value.bit_length() > 63:
        raise ConfigError(f"{where}: an integer of {value.bit_length()} bits, expected at most 63")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        if len(kinds) > 1 and isinstance(value, Mapping):
            with _placed(where):
                return _variant(value, kinds, where, preset)
        if str in kinds and isinstance(value, str):
            return expanded(value)
        return _convert(value, kinds[0], where, preset)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(
                f"{where}: expected one of {', '.join(map(repr, args))}, got {shown(value)}"
            )
        return value
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a group of fields, got {shown(value)}")
        with _placed(where):
            return from_mapping(typing.cast(type, kind), value, where, preset)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {shown(value)}")
        return tuple(_convert(v, args[0], f"{where}[{i}]", None) for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a group of fields, got {shown(value)}")
        return {str(k): _convert(v, args[1], f"{where}.{k}", None) for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if value != value:
        raise ConfigError(f"{where}: expected a number, got nan")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        got = f"{shown(value)} ({type(value).__name__})"
        raise ConfigError(f"{where}: expected {kind.__name__}, got {got}")
    return expanded(value) if kind is str else value


@contextlib.contextmanager
def _placed(where: str) -> Iterator[None]:
    """Says of a `ConfigError` of a group where the group stands: it knows its own name alone."""
    name = where.rpartition(".")[2]
    try:
        yield
    except ConfigError as error:
        for known in (f"config.{name}.", f"{name}."):
            if str(error).startswith(known):
                raise ConfigError(f"{where}.{str(error).removeprefix(known)}") from error
        raise


def _variant(value: Mapping[str, Any], kinds: list[Any], where: str, preset: Any) -> Any:
    """One of several dataclasses, told apart by their class attribute `variant`.

    Fields that only the others have are left out where they are as the preset says or as they are
    by default, so that a name alone can be changed.
    """
    by_name = {kind.variant: kind for kind in kinds}
    name = value.get("name", kinds[0].variant)
    if not isinstance(name, str) or name not in by_name:
        expected = ", ".join(map(repr, by_name))
        raise ConfigError(f"{where}.name: expected one of {expected}, got {shown(name)}")
    fields = {kind: {f.name: f for f in dataclasses.fields(kind)} for kind in kinds}
    kept = {}
    for field, given in value.items():
        having = [kind for kind in kinds if field in fields[kind]]
        if by_name[name] in having or not having:
            kept[field] = given
            continue
        usual = [default(fields[kind][field]) for kind in having]
        usual = [to_mapping(x) if dataclasses.is_dataclass(x) else x for x in usual]
        if given not in usual and given != (preset or {}).get(field, usual[0]):
            raise ConfigError(
                f"{where}.{field}: {given!r}, but {name!r} has no such field, only "
                f"{', '.join(repr(kind.variant) for kind in having)} has; expected it left out, or "
                f"at its default {usual[0]!r}"
            )
    kept.pop("name", None)
    return from_mapping(by_name[name], kept, where, preset)


def default(field: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass field."""
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def to_mapping(config: Any) -> dict[str, Any]:
    """The nested mapping that `from_mapping` turns into the given dataclass again."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    nested = {k: to_mapping(v) if dataclasses.is_dataclass(v) else v for k, v in values.items()}
    variant = getattr(type(config), "variant", None)
    return nested if variant is None else {"name": variant, **nested}


def from_mapping(
    cls: type[T], values: Mapping[str, Any], where: str = "config", preset: Any = None
) -> T:
    """Builds the dataclass `cls` from a nested mapping, which messages call `where`.

    Fields may be int, float, str, bool, `X | None`, `Literal`, `tuple[X, ...]`, one of these or
    str, `dict[str, X]`, another dataclass, or one of several dataclasses: then `name` in the group
    is the class attribute `variant` of the one that is meant (the first where it is absent).
    Absent fields take their defaults.

    A `ConfigError` names a field that is unknown, missing, of the wrong type, or has no effect and
    is not at its default: one that only another variant has, or that the dataclass' method `unused`
    names, with the reason. Such fields may have the values of `preset`, which has the same layout.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    for name in values:
        if name not in fields:
            raise ConfigError(unknown_field(f"{where}.{name}", fields))
    for name, field in fields.items():
        required = dataclasses.MISSING is field.default is field.default_factory
        if required and name not in values:
            raise ConfigError(f"{where}.{name}: missing, and it has no default")
    inner = preset or {}
    made = cls(
        **{k: _convert(v, hints[k], f"{where}.{k}", inner.get(k)) for k, v in values.items()}
    )
    refuse_unused(made, where, inner)
    return made


def refuse_unused(made: Any, where: str, preset: Mapping[str, Any] = {}) -> None:
    """Refuses fields of a dataclass that are set though its method `unused` names them."""
    fields = {f.name: f for f in dataclasses.fields(made)}
    for name, why in made.unused().items() if hasattr(made, "unused") else ():
        first, *rest = name.split(".")
        pair = (getattr(made, first), default(fields[first]))
        given, usual = (functools.reduce(getattr, rest, x) for x in pair)
        for place, value in _set(f"{where}.{name}", given, usual):
            *groups, last = place.removeprefix(f"{where}.").split(".")
            kept = functools.reduce(lambda group, key: group.get(key) or {}, groups, preset)
            if value != kept.get(last):
                raise ConfigError(f"{place}: {value!r} has no effect: {why}")


def without_effect(config: Any, where: str = "") -> Iterator[str]:
    """Dotted names of the fields of a dataclass, and of those in it, that `unused` names."""
    yield from (where + name for name in (config.unused() if hasattr(config, "unused") else ()))
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            yield from without_effect(value, f"{where}{field.name}.")


def _set(where: str, value: Any, usual: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of fields that are not at their defaults."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = (getattr(x, field.name) for x in (value, usual))
            yield from _set(f"{where}.{field.name}", *inner)
    elif value != usual:
        yield where, value


def choose_preset(preset: str, presets: typing.Collection[str]) -> tuple[str, str]:
    """Which preset a config file takes, and a text for the reader that says why.

    It is what the user asked for after the colon; for "" it is "laptop" where JAX finds no
    accelerator, "paper" where it does.
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


def require_fields(
    config: Any, where: str, expected: str, holds: Callable[[Any], bool], *names: str
) -> None:
    """Raises `ConfigError` where the value of one of these fields is not as expected."""
    for name in names:
        value = getattr(config, name)
        require(holds(value), f"{where}.{name}: expected {expected}, got {value}")


def require_range(config: Any, where: str, least: float, most: float, *names: str) -> None:
    """Raises `ConfigError` where one of these fields is not in [least, most]; nan is not."""
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{where}.{name}: expected at least {least:,}, got {value}")
        require(value <= most, f"{where}.{name}: expected at most {most:,}, got {value}")


@contextlib.contextmanager
def naming(where: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the name of a file in front of each `ConfigError` that does not have it yet."""
    try:
        yield
    except ConfigError as error:
        if os.fspath(where) in str(error):
            raise
        raise ConfigError(f"{where}: {error}") from error


def require_memory(needed: float, where: str = "model") -> None:
    """Raises `ConfigError` where weights of so many bytes fit into no memory that there is.

    That is the main memory, or that of the accelerators where it is more, of all processes.
    """
    main = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = ((x.memory_stats() or {}).get("bytes_limit", 0) for x in jax.local_devices())
    there = jax.process_count() * max(main, sum(limits))
    require(
        needed <= there,
        f"{where}: weights and tables of these sizes take {needed / 1e9:,.1f} GB; the memory of "
        f"this machine is {there / 1e9:,.1f} GB",
    )
