"""Sizes are refused before anything is made of them."""

import dataclasses
import functools
import math
import typing

import jax
import numpy as np
import pytest

from hrm_jax import fields
from hrm_jax.fields import ConfigError, from_mapping
from hrm_jax.models import language, recurrent
from hrm_jax.models.hrm import HRMConfig
from hrm_jax.models.planner_executor import PlannerExecutorConfig
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.models.trm import TRMConfig

KINDS = (HRMConfig, TRMConfig, TransformerConfig, PlannerExecutorConfig)
INFINITE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.variant)
def test_every_number_has_a_range(kind):
    hints = typing.get_type_hints(kind)
    for name, hint in ((field.name, hints[field.name]) for field in dataclasses.fields(kind)):
        for value in {int: (-1, 2**40, 2**63 - 1), float: INFINITE}.get(hint, ()):
            with pytest.raises(ConfigError, match=rf"^model\.{name}: .*got -?(\d+|nan|inf)"):
                kind(**{name: value})
            with pytest.raises(ConfigError, match=rf"^model\.{name}: "):
                from_mapping(kind, {name: value}, "model", {name: value})
        with pytest.raises(ConfigError, match=rf"^model\.{name}: "):
            from_mapping(kind, {name: 10**5000}, "model")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (HRMConfig, {"rms_norm_eps": -1.0}),
        (HRMConfig, {"rms_norm_eps": 0.0}),
        (HRMConfig, {"rope_theta": 0.0}),
        (HRMConfig, {"expansion": 1e-9}),
        (TransformerConfig, {"norm_eps": -1.0}),
        (TransformerConfig, {"rope_theta": 0.0, "positions": "rotary"}),
        (TransformerConfig, {"dropout": 1.0}),
    ],
)
def test_what_would_divide_by_nothing_is_refused(kind, changes):
    with pytest.raises(ConfigError, match=f"model.{next(iter(changes))}: "):
        kind(**changes)


def test_a_yaml_bomb_is_not_spelt_out():
    bomb = ["x"] * 10
    for _ in range(30):
        bomb = [bomb] * 10
    with pytest.raises(
        ConfigError, match=r"model\.hidden_size: expected int, got \[\[\["
    ) as caught:
        from_mapping(HRMConfig, {"hidden_size": bomb}, "model")
    assert len(str(caught.value)) < 1000


_RECURRENT = {"seq_len": 9, "vocab_size": 7, "hidden_size": 8, "num_heads": 2, "width_multiple": 8}
_ROWS = tuple(tuple(range(i, i + 3)) for i in (0, 3, 6))
_OF_UNITS = {**_RECURRENT, "mixer": "units", "units": (_ROWS, _ROWS), "unit_width": 5}
_LANGUAGE = {"hidden_size": 8, "num_heads": 2, "ffn_size": 24, "max_length": 16}


@pytest.mark.parametrize(
    ("config", "table"),
    [
        (HRMConfig(**_RECURRENT, num_puzzle_identifiers=3, puzzle_emb_ndim=12), 2 * 11 * 4),
        (HRMConfig(**_RECURRENT, pos_encodings="learned", H_layers=2), 0),
        (TRMConfig(**_RECURRENT, mlp_t=True, pos_encodings="none", puzzle_emb_ndim=8), 0),
        (TRMConfig(**_OF_UNITS, puzzle_emb_ndim=8), 0),
        (HRMConfig(**_OF_UNITS, values=4), 0),
        (TransformerConfig(**_LANGUAGE), 16 * 8),
        (TransformerConfig(**_LANGUAGE, positions="learned", tie_head=True, bias=False), 0),
        (
            TransformerConfig(
                **_LANGUAGE, positions="rotary", num_kv_heads=1, head_dim=6, norm="rms",
                feed_forward="swiglu", scan_layers=True, qk_norm=True, attention_bias="qkv",
            ),
            0,
        ),
        (PlannerExecutorConfig(**_LANGUAGE, planner_layers=1, num_codes=4, num_plans=2), None),
    ],
)  # fmt: skip
def test_weights_take_as_much_as_is_estimated(config, table):
    init = language.init if hasattr(config, "ffn_size") else recurrent.init
    shapes = jax.eval_shape(functools.partial(init, config), jax.random.key(0))
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    if table is None:  # the planner's head is not made, and biases are not counted
        unmade = config.vocab_size * config.hidden_size
        biases = config.num_plans * config.plan_size + config.hidden_size
        table = unmade - biases
    assert config.weight_bytes == 4 * (count + table)


@pytest.mark.parametrize(
    ("init", "config"),
    [
        (language.init, TransformerConfig(hidden_size=2**20, num_layers=4096)),
        (language.init, TransformerConfig(hidden_size=2**20, max_length=2**24)),
        (recurrent.init, HRMConfig(**{**_RECURRENT, "hidden_size": 2**20})),
        (
            recurrent.init,
            TRMConfig(**_RECURRENT, num_puzzle_identifiers=2**31 - 1, puzzle_emb_ndim=64),
        ),
    ],
)
def test_what_fits_into_no_memory_is_not_begun(init, config, monkeypatch):
    monkeypatch.setattr(fields.os, "sysconf", lambda name: 1 << 18)  # 64 GB
    with pytest.raises(ConfigError, match=r"model: .* take [\d,.]+ GB; the memory .* 68\.7 GB"):
        init(config, jax.random.key(0))
