"""Configurations: what is refused, and how it is said."""

import dataclasses
from typing import Literal

import pytest

from hrm_jax import tasks
from hrm_jax.fields import ConfigError, from_mapping


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batchsize": 8}, r"config\.batchsize.*did you mean 'batch_size'"),
        ({"model__hiden_size": 8}, r"config\.model\.hiden_size.*did you mean 'hidden_size'"),
        ({"optimizer__lr_warmup": 8}, r"config\.optimizer\.lr_warmup"),
        ({"steps": "many"}, r"config\.steps: expected int, got 'many' \(str\)"),
        ({"steps": True}, r"config\.steps: expected int, got True"),
        ({"steps": 1.5}, r"config\.steps: expected int, got 1\.5"),
        ({"tensorboard": 1}, r"config\.tensorboard: expected bool"),
        ({"model": 3}, r"config\.model: expected a group of fields, got 3"),
        ({"data__givens": 3}, r"config\.data\.givens: expected a list, got 3"),
        ({"data__givens": [3, "x"]}, r"config\.data\.givens\[1\]: expected int"),
        ({"data__givens": [3]}, r"data\.givens: expected a least and a greatest"),
        ({"data": {"path": "x", "train_csv": "y"}}, r"data\.path and data\.train_csv"),
        ({"loss": "hinge"}, r"config\.loss: expected one of 'stablemax', 'softmax', got 'hinge'"),
        ({"steps": 0}, r"config\.steps: expected at least 1"),
        ({"batch_size": 0}, r"config\.batch_size: expected at least 1"),
        ({"keep_checkpoints": 0}, r"config\.keep_checkpoints: expected at least 1"),
        ({"eval_slots": 0}, r"config\.eval_slots: expected at least 1"),
        ({"microbatch_size": 3}, r"config\.microbatch_size: 3 does not divide batch_size 8"),
        ({"microbatch_size": -4}, r"config\.microbatch_size: -4"),
        ({"seed": -1}, r"config\.seed: expected 0"),
        ({"optimizer__puzzle_emb_lr": -1.0}, r"optimizer\.puzzle_emb_lr: expected more than 0"),
        ({"early_stopping": {"patience": 0}}, r"early_stopping\.patience: expected at least 1"),
        ({"control": {"max_tokens": -1}}, r"control\.max_tokens: expected at least 0, got -1"),
        ({"control": {"token_limit_iterations": 0}}, r"control\.token_limit_iterations: expected"),
        ({"model__num_heads": 3}, r"model\.num_heads: 3 does not divide hidden_size 32"),
        ({"model__num_heads": 32}, r"rotary positions need an even head size, got 1"),
        ({"model__H_cycles": 0}, r"model\.H_cycles: expected at least 1"),
        ({"model__halt_exploration_prob": 1.5}, r"model\.halt_exploration_prob"),
        ({"model__forward_dtype": "float16"}, r"config\.model\.forward_dtype"),
        (
            {"model__name": "trm", "model__H_layers": 6},
            r"config\.model\.H_layers: 6, but 'trm' has no such.*only 'hrm' has; .*default 4",
        ),
        (
            {"model": {"name": "trm", "mlp_t": True, "num_heads": 4, "hidden_size": 32}},
            r"config\.model\.num_heads: 4 has no effect: mlp_t: an MLP",
        ),
        (
            {"data": {"train_csv": "a.csv", "test_csv": "b.csv", "seed": 3}},
            r"config\.data\.seed: 3 has no effect: neither subsample nor num_aug draws",
        ),
        ({"model__mlp_t": True}, r"config\.model\.mlp_t: True, but 'hrm' has no such field"),
        (
            {"early_stopping": {"patience": 3}},
            r"early_stopping\.patience: 3 has no effect: .*metric",
        ),
        ({"control": {"token_limit_iterations": 3}}, r"token_limit_iterations: 3 has no effect"),
        ({"task": "sudoko"}, r"config\.task: expected one of sudoku, maze, .*got 'sudoko'"),
    ],
)
def test_bad_fields_are_named(change, message, tiny):
    with pytest.raises(ConfigError, match=message):
        tasks.parse(tiny(**change))


def test_seeds_of_draws_from_files_and_a_preset_s_heads_are_kept(tiny):
    files = {"train_csv": "a.csv", "test_csv": "b.csv", "seed": 3}
    for drawn in ({"subsample": 2}, {"num_aug": 2}):
        assert tasks.parse(tiny(data={**files, **drawn})).data.seed == 3
    config = tiny(model={"name": "trm", "mlp_t": True, "num_heads": 4, "hidden_size": 32})
    assert tasks.parse({**config, "preset_values": config}).model.num_heads == 4


def test_fields_are_converted(tiny):
    config = tasks.parse(tiny(optimizer__ema=0, data__givens=[5, 7]))
    assert config.optimizer.ema == 0.0
    assert isinstance(config.optimizer.ema, float)
    assert config.data.givens == (5, 7)
    assert config.model.L_cycles == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 3


def test_a_presets_own_fields_do_not_stand_in_the_way_of_another_network():
    presets = {"laptop": {"steps": 5, "model": {"H_layers": 2, "hidden_size": 64}}}
    config = tasks.preset_config("sudoku", presets, "laptop")
    assert tasks.parse(config.to_dict()).model.H_layers == 2
    config.model.name = "trm"
    assert tasks.parse(config.to_dict()).model.hidden_size == 64
    config.model.H_layers = 3
    with pytest.raises(ConfigError, match=r"config\.model\.H_layers: 3, but 'trm' has no such"):
        tasks.parse(config.to_dict())
    with pytest.raises(KeyError, match="hiden"):
        tasks.preset_config("sudoku", {"laptop": {"model": {"hiden_size": 64}}}, "laptop")

    presets = {"laptop": {"plan": {"dropout": 0.3}}}
    config = tasks.preset_config("pairs", presets, "laptop")
    config.model.name = "transformer"
    assert tasks.parse(config.to_dict()).plan.dropout == 0.3
    config.plan.anneal = 0.2
    with pytest.raises(ConfigError, match=r"config\.plan\.anneal: 0\.2 has no effect: .*decoder"):
        tasks.parse(config.to_dict())


def test_mapping_to_dataclass():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        kind: Literal["a", "b"] = "a"

    @dataclasses.dataclass(frozen=True)
    class Outer:
        size: int
        limit: int | None = None
        inner: Inner = Inner()

    # Annotations are resolved where the classes are defined; these are real types.
    Outer.__annotations__.update(size=int, limit=int | None, inner=Inner)
    Inner.__annotations__.update(kind=Literal["a", "b"])
    assert from_mapping(Outer, {"size": 1, "inner": {"kind": "b"}}) == Outer(1, None, Inner("b"))
    assert from_mapping(Outer, {"size": 1, "limit": 2}).limit == 2
    with pytest.raises(ConfigError, match=r"config\.size: missing, and it has no default"):
        from_mapping(Outer, {})
