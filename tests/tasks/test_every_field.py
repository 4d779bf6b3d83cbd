"""Every field of every config does something: it changes the data, the programs, or what a test
that is named here asserts; or it is refused by name where it would have no effect."""

import dataclasses
import functools
import hashlib
import pathlib
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.text.tokenizers import ByteTokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError, to_mapping
from hrm_jax.models import act, language
from hrm_jax.models.relational import network
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.tasks.rl.task import RLTask

TESTS = pathlib.Path(__file__).parents[1]

HRM = {
    **{"hidden_size": 32, "num_heads": 2, "expansion": 1.0, "H_layers": 1, "L_layers": 1},
    **{"H_cycles": 1, "L_cycles": 1, "puzzle_emb_ndim": 16, "halt_max_steps": 3},
    **{"forward_dtype": "float32", "width_multiple": 8},
}
TRM = {**{k: v for k, v in HRM.items() if k != "H_layers"}, "name": "trm", "puzzle_emb_len": 2}
SIZES = {
    **{"hidden_size": 32, "num_heads": 2, "ffn_size": 32, "feed_forward": "swiglu"},
    **{"positions": "rotary", "dropout": 0.1, "max_length": 64},
}
PLAIN = {**SIZES, "name": "transformer", "num_layers": 2, "norm": "rms"}
PLANNED = {
    **{**SIZES, "name": "planner_executor", "planner_layers": 1, "executor_layers": 1},
    **{"planner_length": 16, "plan_size": 16, "num_plans": 2, "num_codes": 4},
}
RELATIONS = {"relation_dim": 8, "hidden_dim": 8, "g_layers": 2}
SMALL = {"num_train": 8, "num_test": 4}
CASES = {
    "sudoku": {"model": HRM, "data": {**SMALL, "size": 4}},
    "maze": {"model": TRM, "data": {**SMALL, "size": 5, "min_path": 3}},
    "domino": {"model": HRM, "data": SMALL},
    "latin": {"model": HRM, "data": {**SMALL, "size": 4}},
    "arc": {
        "model": HRM,
        "data": {"num_train": 8, "num_test": 8, "num_aug": 1, "side": 5, "families": "recolour"},
    },
    "pairs": {"model": PLANNED, "data": {"num_train": 16, "num_test": 8, "numbers_below": 1000}},
    "text": {"model": PLAIN, "data": {"length": 32, "eval_stride": 16, "eval_windows": 8}},
    "sort_of_clevr": {"model": RELATIONS, "data": {"num_test": 4}},
    "family": {"model": {**RELATIONS, "name": "mlp"}, "data": {"num_test": 4}},
    "instruct": {
        **{"epochs": 0, "eval_new_tokens": 8},
        "data": {
            "train": str(pathlib.Path(__file__).with_name("instructions.jsonl")),
            "length": 96,
            "held_out": 0.4,
        },
    },
    "infinito": {
        "data": {"length": 32, "eval_rows": 2},
        "memory": {"slots": 4, "top_k": 2},
    },
    "ppo": {"rollout_steps": 4, "minibatches": 2, "batch_size": 4, "model": {"hidden": [8]}},
    "dqn": {"replay_size": 100, "learning_starts": 32, "train_every": 2, "model": {"hidden": [8]}},
    "infinito_scheduler": {
        **{"rollout_steps": 2, "minibatches": 2, "batch_size": 2, "model": {"hidden": [8]}},
        "language": {
            **{"data": {"length": 16}, "batch_size": 1, "memory": {"slots": 4, "top_k": 2}},
        },
    },
}

# Values to try where one more, half, or another choice is none or makes no difference.
VALUES = {
    "data.size": [6],
    "data.givens": [(7, 8)],
    "data.walls": [(0.2, 0.3)],
    "data.players": [(2,)],
    "data.drawing": [0.0, 1.0],
    "data.choice": [0.9],
    "data.families": ["mirror"],
    "data.num_train": [10],
    "model.num_heads": [1],
    "model.rms_norm_eps": [1e-2],
    "model.norm_eps": [1e-2],
    "model.attention": ["pallas"],
    "model.plan_id": [262],
    "model.channels": [(4,)],
    "model.units": [((tuple(range(16)),),)],
    "model.relation_dim": [64],
    "data.eval_pairs": [4],
    "data.length": [16, 24, 33, 64],
    "memory.slots": [6],
    "memory.parts": [2],
    "memory.threshold": [0.4],
    "phi.dimensions": [4],
    "data.target_length": [32],
    "environment": ["Acrobot-v1"],
    "model.hidden": [(4, 4)],
    "optimizer.clip_norm": [1.0],
    "optimizer.ema": [0.5],
    "lora.target_modules": ["all-linear"],
    "lora.rank_pattern": [{"c_attn": 4}],
    "lora.alpha_pattern": [{"c_attn": 4.0}],
    "lora.modules_to_save": [("final_norm",)],
    "eval_answers": [1],
    "eval_new_tokens": [100],
    "data.held_out": [0.5],
}
_UNITS = {"model.num_heads": 8, "model.puzzle_emb_len": 16}
_OF_UNITS = ("unit_width", "units", "values", "restart_noise", "restart_after")
# What else a field needs to have an effect.
WITH = {
    "model.plan_id": {"model.vocab_size": 264},
    "model.halt_threshold": {"model.q_target": "none"},
    "model.mlp_t": {"model.num_heads": 8},
    "model.mixer": _UNITS,
    **{f"model.{name}": {"model.mixer": "units"} | _UNITS for name in _OF_UNITS},
    "model.restart_after": {"model.mixer": "units", "model.restart_noise": 0.5} | _UNITS,
    "data.segments": {"data.kind": "introductions"},
    "model.log_std": {"environment": "Pendulum-v1"},
    "squash": {"environment": "Pendulum-v1"},
    "priority_beta_first": {"priority_alpha": 0.5},
    "priority_beta_last": {"priority_alpha": 0.5},
    "priority_offset": {"priority_alpha": 0.5},
    "early_stopping": {"early_stopping.metric": "eval/exact_accuracy"},
    "control.token_limit_iterations": {"control.max_tokens": 5},
}
REFUSED = (
    "has no effect|but the data have|only launch/build_dataset.py takes it|have no augmentations"
)
# Fields that are not seen in data and programs, and the test that asserts what they do.
PROVED = {
    "model.max_length": "test_no_more_positions_than_there_are",
    "data.max_grid": "test_large_tasks_are_left_out",
    "data.path": "test_the_same_puzzles_from_every_format",
    "data.train_csv": "test_changed_csv_files_are_refused",
    "data.test_csv": "test_changed_csv_files_are_refused",
    "data.training": "test_fields_of_the_data",
    "data.evaluation": "test_fields_of_the_data",
    "data.train": "test_bad_beginnings_are_named",
    "data.test": "test_bad_text_configs_are_named",
    "data.json_field": "test_another_json_field",
    "data.prompt_field": "test_jsonl",
    "data.target_field": "test_jsonl",
    "data.tokenizer": "test_other_tokenizers",
    "data.document": "test_documents_within_a_file",
    "data.max_unpacked": "test_a_packed_file_has_a_limit",
    "data.strict": "test_strict_reading_refuses_invalid_bytes",
    "data.held_out": "test_neither_part_of_a_split_is_empty",
    "data.too_long": "test_pairs_that_are_too_long",
    "data.branch": "test_a_branch_is_trained_kept_and_rotated",
    "data.root": "test_a_branch_is_trained_kept_and_rotated",
    "data.invalid": "test_invalid_rows_are_counted_named_and_left_out_if_asked",
    "data.accept_json": "test_printed_json_is_read_where_that_is_asked_for",
    "data.template": "test_a_model_s_own_template",
    "from_json": "test_the_manual_s_file",
    "model": "test_it_goes_on_exactly_and_only_with_the_same_base",
    "model.filters": "test_pictures_stay_bytes",
    "memory.layer": "test_bad_configurations_are_named",
    "eval_samples": "test_figures_of_a_run",
    **dict.fromkeys(
        ("meter.dimensions", "meter.projections", "meter.shrinkage", "meter.seed"),
        "test_the_meter_and_its_controls_on_a_known_process",
    ),
    "language": "test_the_language_model_is_told_all_of_its_fields",
    **dict.fromkeys(("weights", "bands"), "test_every_number_of_the_reward_counts"),
    "reward": "test_reward_s_weights_are_presets_or_one_s_own",
    "policies": "test_its_file_tells_of_all_policies",
    "eval_seed": "test_it_is_loaded_and_evaluated",
    "task": "test_bad_fields_are_named",
    "preset": "test_harmless_fields_may_change",
    "expect": "test_every_preset_is_a_valid_configuration",
    "log_every": "test_harmless_fields_may_change",
    "eval_every": "test_early_stopping",
    "checkpoint_every": "test_early_stopping",
    "keep_checkpoints": "test_only_the_last_checkpoints_are_kept",
    "best_metric": "test_an_unknown_figure_is_named",
    "init_from": "test_a_crash_before_the_first_checkpoint_keeps_init_from",
    "profile": "test_profile_and_tensorboard_write_files",
    "tensorboard": "test_profile_and_tensorboard_write_files",
    "wandb": "test_wandb_that_is_not_installed_is_an_error",
    "mesh.data": "test_sizes_of_the_mesh",
    "mesh.fsdp": "test_sizes_of_the_mesh",
    "mesh.smallest": "test_the_rule_for_parameters",
    "mesh.cpu_devices": "test_a_cpu_is_divided_before_there_are_arrays",
    "shard_tables": "test_a_divided_table_learns_the_same",
    "early_stopping.metric": "test_early_stopping",
    "early_stopping.mode": "test_early_stopping",
    "early_stopping.patience": "test_early_stopping",
    "early_stopping.min_delta": "test_early_stopping",
    "control.max_iterations": "test_a_run_stops_at_its_limits_and_goes_on_when_they_are_raised",
    "control.max_tokens": "test_a_run_stops_at_its_limits_and_goes_on_when_they_are_raised",
    "control.token_limit_iterations": (
        "test_a_run_stops_at_its_limits_and_goes_on_when_they_are_raised"
    ),
}


def _fields(case):
    """Dotted names of the fields of a case's configuration, and their types."""

    def walk(config, prefix):
        hints = typing.get_type_hints(type(config))
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                yield from walk(value, f"{prefix}{field.name}.")
            else:
                yield prefix + field.name, hints[field.name]

    return dict(walk(tasks.parse(_config(case)), ""))


def _config(case, **fields):
    """The nested mapping of a case with some fields changed, by their dotted names."""
    base = {"steps": 10, "batch_size": 8, "best_metric": ""}
    base["optimizer"] = {"warmup_steps": 2, "lr_min_ratio": 0.5}
    values = to_mapping(tasks.parse({"task": case, **base, **CASES[case]}))
    for name, value in fields.items():
        *groups, last = name.split(".")
        functools.reduce(dict.__getitem__, groups, values)[last] = value
    return values


def _effects(values):
    """What a configuration makes, one kind after the other: data, programs, evaluation."""
    config = tasks.parse(values)
    task = tasks.build(config, **({"base": _base()} if config.base else {}))
    batch = next(task.batches())
    if isinstance(task, RLTask):
        held_out = []
    elif hasattr(task, "questions"):
        held_out = config.data.inputs(task.test)
    else:
        held_out = task.test.inputs if hasattr(task, "test") else task.held_out()[0]
    yield task.identity, [(k, v.shape, v.tobytes()) for k, v in batch.items()], _bytes(held_out)
    key = jax.random.key(config.seed)
    yield _text(task.init, key), int(jax.random.key_data(key)[-1])
    shapes = jax.eval_shape(task.init, key)
    shapes = shapes.replace(frozen=jax.eval_shape(lambda: task.frozen(jnp.asarray)))
    yield _text(task.step, shapes, batch)
    if config.base:
        return
    weights = task.weights(shapes)
    if isinstance(task, RLTask):
        yield _text(task.over_seeds(task._evaluation), weights)
    elif hasattr(task, "puzzle"):
        solve = functools.partial(
            act.solve,
            task.config.model,
            slots=config.eval_slots,
            max_steps=config.eval_max_steps or None,
        )
        tokens, names = jnp.zeros((4, task.config.model.seq_len), int), jnp.zeros(4, int)
        yield _text(solve, weights, tokens, names, 4), len(task.evaluated)
    elif hasattr(task, "questions"):
        asked = jnp.ones((4, 3, task.questions.codes.shape[1]))
        yield _text(network(task.config.model).apply, weights, jnp.asarray(held_out[:4]), asked)
    else:
        rows = {name: x[:8] for name, x in held_out.items()}
        yield _text(task._scores, weights["params"], rows, jnp.ones(8, bool))


@functools.cache
def _base():
    config = TransformerConfig(
        hidden_size=16, num_layers=1, num_heads=2, ffn_size=16, max_length=128, positions="learned",
        feed_forward="gelu", tie_head=True,
    )  # fmt: skip
    params = language.init(config, jax.random.key(0))
    return LanguageModel(config, {"params": params}, ByteTokenizer())


def _bytes(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def _text(function, *args):
    program = jax.make_jaxpr(function)(*args)
    text = re.sub(r"0x[0-9a-f]+|id=\d+", "", str(program)).encode()
    return hashlib.sha256(b"".join([text, *_bytes(program.consts)])).hexdigest()


@functools.cache
def _usual(case, extra):
    return list(_effects(_config(case, **dict(extra))))


def _others(name, kind, value):
    """Values to try instead of the one that a field has."""
    if name in VALUES:
        return VALUES[name]
    if typing.get_origin(kind) is typing.Literal:
        return [choice for choice in typing.get_args(kind) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, 2 * value + 2, 16]
    if isinstance(value, float):
        return [value / 2, 0.5, value + 1]
    raise AssertionError(f"{name}: say in VALUES what it could be beside {value!r}")


def _once():
    """Every field once: those that several cases share in the first of them."""
    seen = set()
    for case in CASES:
        config = tasks.parse(_config(case))
        for name in _fields(case):
            group = name.split(".")[0]
            part = getattr(config, group)
            owner = type(part) if dataclasses.is_dataclass(part) else ""
            if (owner, name) not in seen:
                seen.add((owner, name))
                yield case, name


@pytest.mark.parametrize(("case", "name"), _once(), ids=str)
def test_every_field_does_something(case, name):
    if proved := PROVED.get(name) or PROVED.get(name.split(".")[0]):
        found = [x for x in TESTS.rglob("test_*.py") if f"def {proved}(" in x.read_text()]
        assert found, f"{name}: there is no {proved} any more"
        return
    extra = tuple((k, v) for k, v in WITH.get(name, {}).items() if k in _fields(case))
    before = _usual(case, extra)
    values = _config(case, **dict(extra))
    value = functools.reduce(dict.__getitem__, name.split("."), values)
    for other in _others(name, _fields(case)[name], value):
        try:
            after = _effects(_config(case, **dict(extra), **{name: other}))
            if any(a != b for a, b in zip(after, before, strict=True)):
                return
        except ConfigError as error:
            if re.search(REFUSED, str(error)) and name in str(error):
                return
        except ValueError:
            continue  # of a size that does not fit
    raise AssertionError(f"{name}: changing it changes nothing")
