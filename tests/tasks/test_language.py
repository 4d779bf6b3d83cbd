"""Language tasks: what counts, what the plan carries, and that they learn."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.text.pairs import encode_pairs
from hrm_jax.data.text.tokenizers import BOS, EOS, PAD
from hrm_jax.fields import ConfigError
from hrm_jax.tasks.base import Task
from hrm_jax.tasks.language.task import PlanConfig, code_information

SIZES = {
    "hidden_size": 32,
    "num_heads": 2,
    "ffn_size": 64,
    "feed_forward": "swiglu",
    "positions": "rotary",
    "dropout": 0.0,
    "max_length": 32,
}
PLANNED = {
    **SIZES,
    "name": "planner_executor",
    "planner_layers": 1,
    "executor_layers": 1,
    "planner_length": 16,
    "plan_size": 16,
    "num_plans": 2,
    "num_codes": 4,
}
PLAIN = {**SIZES, "name": "transformer", "num_layers": 1, "norm": "rms", "bias": False}
FAST = {"name": "adamw", "learning_rate": 0.02, "warmup_steps": 5, "weight_decay": 0.0}


@pytest.fixture
def abc_file(tmp_path):
    path = tmp_path / "abc.txt"
    path.write_text("abcabc" * 60)
    return str(path)


def _text(file, model=PLAIN, **more):
    config = {
        "task": "text",
        "steps": 60,
        "batch_size": 8,
        "data": {"train": file, "test": file, "length": 16, "eval_stride": 8},
        "model": model,
        "optimizer": FAST,
        **more,
    }
    return tasks.build(tasks.parse(config))


def _pairs(model=PLANNED, **more):
    config = {
        "task": "pairs",
        "steps": 40,
        "batch_size": 8,
        "data": {"numbers_below": 1000, "num_train": 200, "num_test": 20, "eval_pairs": 20},
        "model": {**model, "max_length": 64},
        "optimizer": FAST,
        **more,
    }
    return tasks.build(tasks.parse(config))


def _trained(task, steps=None):
    state = task.init(jax.random.key(0))
    batches, step = task.batches(), jax.jit(task.step)
    metrics = []
    for _ in range(steps or task.config.steps):
        state, figures = step(state, next(batches))
        metrics.append(figures)
    return state, metrics


def test_both_are_tasks(abc_file):
    assert isinstance(_text(abc_file), Task)
    assert isinstance(_pairs(), Task)


@pytest.mark.parametrize("model", [PLAIN, PLANNED], ids=["plain", "planned"])
def test_it_learns_the_next_byte_and_not_the_one_after(abc_file, model):
    # With the targets shifted twice, as the original had them, "b" would follow "c".
    task = _text(abc_file, model)
    before = task.init(jax.random.key(0))
    state, metrics = _trained(task)
    first, last = (
        float(m["bits_per_token"][0] / m["bits_per_token"][1]) for m in (metrics[0], metrics[-1])
    )
    assert first > 6
    assert last < 0.5
    frozen, figures = task.evaluate(before), task.evaluate(state)
    assert figures["eval/bits_per_byte"] < 0.5 < 5 < frozen["eval/bits_per_byte"]
    tokens = jnp.array([[*b"abcabcabcab"]])
    if model is PLAIN:
        logits = task.apply(state.params, tokens)
    else:
        logits, _ = task.apply(state.params, tokens, jnp.array([4]))
    assert int(logits[0, -1].argmax()) == ord("c")


# Continuous, a vector for each half of the text before, so that two places of it can be told.
BEFORE = {
    **{name: value for name, value in PLANNED.items() if name != "num_codes"},
    **{"num_codes": 0, "plans_from": "before", "pooling": "parts", "max_length": 8},
}


@pytest.fixture
def far_file(tmp_path):
    """Lines of one letter, which comes back after as many digits as a window has places."""
    path = tmp_path / "far.txt"
    path.write_text("\n".join(f"{letter}12345678" * 8 for letter in "abcd"))
    return str(path)


def _before(far_file, **more):
    data = {"train": far_file, "test": far_file, "document": "line", "length": 8, "eval_stride": 4}
    return _text(far_file, BEFORE, data=data, **more)


def test_a_plan_of_the_text_before_tells_what_the_executor_cannot_see(far_file):
    slower = {**FAST, "learning_rate": 0.003}
    task = _before(far_file, steps=300, batch_size=16, plan={"dropout": 0.0}, optimizer=slower)
    state, _ = _trained(task)
    figures = task.evaluate(state)
    for other in ("shuffled", "no"):
        assert figures[f"eval/bits_per_byte_{other}_plan"] > figures["eval/bits_per_byte"] + 0.1

    model = task.model(task.config, task.weights(state), "")
    for letter in "abcd":
        prompt = list(2 * f"{letter}12345678".encode())
        assert model.generate(prompt, max_new_tokens=1, temperature=0.0).text == letter
    with pytest.raises(ValueError, match=r"at most 23 tokens, .* 16 .* in 8, got 24"):
        model.generate(24 * [ord(".")])


def test_the_planner_reads_what_is_before_the_window_and_nothing_else(far_file):
    task = _before(far_file)
    batch = jax.tree.map(jnp.asarray, task.held_out(limit=0)[0])
    rows = task.rows(batch, None)
    assert rows["tokens"].shape == (len(batch["tokens"]), 8)
    assert int(rows["counted"].sum()) == len(task.documents[1].tokens)
    read, lengths = rows["planned"]
    for row, before, window, count in zip(
        batch["tokens"].tolist(), read.tolist(), rows["tokens"].tolist(), lengths, strict=True
    ):
        ended = 16 - row[15::-1].index(EOS) if EOS in row[:16] else 0
        assert before[:count] == (row[ended:16] or [PAD])
        assert row[16:] == window

    counts = set()
    for seed in range(20):
        other = task.rows(batch, jax.random.key(seed))["planned"]
        counts |= set(np.asarray(lengths - other[1]).tolist())
    assert min(counts) == 0  # never more
    assert 3 < len(counts) <= 17


def test_prompts_are_planned_for_whatever_the_weights_were_trained_on(far_file):
    sizes = _before(far_file).config.model
    assert sizes.plans_from == "before"
    text, pairs = _text(far_file, PLANNED), _pairs()
    for task, kept in ((text, "before"), (pairs, "prompt")):
        assert task.with_sizes(task.config, sizes).model.plans_from == kept
    plain = _pairs({**PLAIN, "name": "transformer"})
    assert plain.with_sizes(plain.config, sizes).model.pooling == "parts"
    with pytest.raises(ConfigError, match=r"model\.plans_from.*nothing is before a prompt"):
        _pairs({**PLANNED, "plans_from": "before"})


def test_bits_per_byte_of_a_uniform_model(abc_file):
    task = _text(abc_file)
    params = jax.tree.map(jnp.zeros_like, task.init(jax.random.key(0)).params)
    batch, bytes_per_token = task.held_out(limit=0)
    figures = task.score(params, batch, bytes_per_token)
    assert figures["eval/bits_per_byte"] == pytest.approx(math.log2(260))
    assert figures["eval/bytes"] == 360


def test_rows_of_pairs_are_prompt_then_target():
    task = _pairs()
    batch, _ = task.held_out(limit=4)
    rows = task.rows(jax.tree.map(jnp.asarray, batch), None)
    prompts, targets = task.pairs[1].prompts, task.pairs[1].targets
    for i in range(4):
        text = [BOS, *prompts[i].encode(), *targets[i].encode(), EOS]
        row = rows["tokens"][i].tolist()
        assert row == text + [PAD] * (len(row) - len(text))
        assert rows["split"][i] == 1 + len(prompts[i])
        counted = np.flatnonzero(rows["counted"][i])
        assert counted.tolist() == list(range(1 + len(prompts[i]), len(text)))


def test_only_the_plan_can_tell_the_number_and_it_does():
    task = _pairs(
        {**PLANNED, "executor_sees_prompt": False, "num_codes": 0},
        data={"numbers_below": 101, "num_train": 80, "num_test": 1},
        steps=250,
        plan={"dropout": 0.0},
        batch_size=32,
        optimizer={**FAST, "name": "muon", "learning_rate": 0.01},
    )
    state, _ = _trained(task)
    pairs = encode_pairs(task.pairs[0], task.tokenizer, *task.lengths(*task.pairs))
    figures = task.score(state.averaged, pairs.batch(np.arange(64)), 1.0)
    assert figures["eval/exact_match"] > 0.8
    assert figures["eval/bits_per_byte_shuffled_plan"] > figures["eval/bits_per_byte"] + 0.5
    assert figures["eval/bits_per_byte_no_plan"] > figures["eval/bits_per_byte"] + 0.5


def test_exact_match_needs_the_end_too():
    task = _pairs()
    state = task.init(jax.random.key(0))
    batch, _ = task.held_out(limit=8)
    assert task.score(state.params, batch, 1.0)["eval/exact_match"] == 0
    answers = np.asarray(task._answers(state.params, jax.tree.map(jnp.asarray, batch)))
    ends = {**batch, "target": answers, "target_length": np.full(8, answers.shape[1])}
    assert task.score(state.params, ends, 1.0)["eval/exact_match"] == 1


def test_code_information():
    sure = 50 * jnp.eye(4)[:, None]  # four rows, each sure of its own code
    assert code_information(sure) == pytest.approx(math.log(4), abs=1e-4)
    assert code_information(jnp.tile(sure[:1], (4, 1, 1))) == pytest.approx(0, abs=1e-4)
    assert code_information(jnp.zeros((4, 1, 4))) == pytest.approx(0, abs=1e-4)


def test_every_knob_of_the_plan_does_something(abc_file):
    # Fields whose change must change the gradient of the first step.
    base = _text(abc_file, PLANNED)
    start = base.init(jax.random.key(0))
    batch = next(base.batches())

    def norms(task):
        _, metrics = jax.jit(task.step)(start, batch)
        return float(metrics["grad_norm"][0]), float(metrics["loss"][0])

    before = norms(base)
    for change in (
        {"usage_weight": 1.0},
        {"dropout": 0.9},
        {"first_temperature": 10.0},
    ):
        config = dataclasses.replace(
            base.config, plan=dataclasses.replace(base.config.plan, **change)
        )
        assert norms(type(base)(config)) != before, change


def test_temperature_falls_to_its_last_value():
    plan = PlanConfig(first_temperature=2.0, last_temperature=0.5, anneal=0.5)
    found = [float(plan.temperature(jnp.int32(step), 100)) for step in (0, 25, 50, 100)]
    assert found == pytest.approx([2.0, 1.0, 0.5, 0.5])


def test_microbatches_give_the_same_step(abc_file):
    whole = _text(abc_file)
    parts = _text(abc_file, microbatch_size=2)
    state = whole.init(jax.random.key(0))
    batch = next(whole.batches())
    one, two = (jax.jit(task.step)(state, batch)[0].params for task in (whole, parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, two)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": {"train": "nowhere.txt", "length": 16, "eval_stride": 8}}, DataError, "nowhere"),
        ({"model": {**PLAIN, "vocab_size": 100}}, ConfigError, "model.vocab_size"),
        ({"model": {**PLANNED, "plan_id": 97}}, ConfigError, "model.plan_id"),
        ({"model": {**PLAIN, "max_length": 8}}, ConfigError, "data.length"),
        ({"data": {"eval_stride": 600}}, ConfigError, "data.eval_stride"),
    ],
)
def test_bad_text_configs_are_named(abc_file, change, error, message):
    config = {"task": "text", "data": {"train": abc_file, "length": 16, "eval_stride": 8}}
    with pytest.raises(error, match=message):
        _ = tasks.build(tasks.parse({**config, "model": PLAIN, **change})).identity


def test_bad_pair_configs_are_named():
    with pytest.raises(ConfigError, match=r"model.max_length: 64.*up to"):
        _pairs(data={"numbers_below": 10**9}).batches()
    with pytest.raises(ConfigError, match=r"data.test"):
        _pairs(data={"train": "some.tsv"})
