"""INFINITO's language model as a task: what λ does, what a run carries, and what it measures."""

import dataclasses
import importlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import hrm_jax
from hrm_jax import experiment, tasks
from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.streams import NAMES, Introductions, Stream, TextStreams
from hrm_jax.data.text.tokenizers import EOS, ByteTokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.interop.weights import write_weights
from hrm_jax.models import infinito, language
from hrm_jax.models.transformer import Transformer, TransformerConfig
from hrm_jax.tasks.infinito import meter
from hrm_jax.tasks.infinito.config import MeterConfig
from hrm_jax.tasks.infinito.network import nats
from hrm_jax.tasks.infinito.report import memory_verdict, phi_verdict
from hrm_jax.tasks.infinito.task import InfinitoTask
from hrm_jax.tasks.supervised import Carry
from hrm_jax.trained.evaluate import evaluate
from hrm_jax.trained.load import load_pretrained, merge_adapter

GPT2 = TransformerConfig(
    hidden_size=32, num_layers=2, num_heads=2, ffn_size=64, max_length=64, positions="learned",
    feed_forward="gelu", tie_head=True, dropout=0.0, init_std=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def base():
    params = language.init(GPT2, jax.random.key(0))
    return LanguageModel(GPT2, {"params": params}, ByteTokenizer(), "bytes", "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("infinito")
    save_pretrained(folder / "base", base.config, base.variables["params"], "bytes")
    lines = [f"El número {i} viene después del {i - 1}; así lo dice el libro." for i in range(90)]
    (folder / "text.txt").write_text("\n".join(lines))
    return folder


def _config(folder, **more):
    given = {
        **{"task": "infinito", "model": str(folder / "base"), "steps": 6, "batch_size": 4},
        **{"log_every": 2, "eval_every": 3, "checkpoint_every": 3, "tensorboard": False},
        **{"eval_samples": 2, "eval_new_tokens": 40},
        "lora": {"r": 2, "alpha": 8.0, "dropout": 0.1, "target_modules": ["c_attn", "c_proj"]},
        "memory": {"slots": 8, "parts": 2, "threshold": 0.05, "layer": 1},
        "phi": {"dimensions": 4, "projections": 2},
        "meter": {"dimensions": 4, "projections": 2},
        "plateau": {"window": 2, "patience": 1},
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "warmup_steps": 1},
    }
    data = {
        **{"train": str(folder / "text.txt"), "document": "line", "length": 32},
        **{"eval_rows": 4, "eval_segments": 3, "held_out": 0.4},
    }
    return {**given, **more, "data": {**data, **more.get("data", {})}}


def _task(folder, base, **more):
    return InfinitoTask(tasks.parse(_config(folder, **more)), base=base)


def _loss(task, base, batch):
    """The loss's function of what is trained, and its start."""
    state = task.init(jax.random.key(0))
    params = base.variables["params"]
    memory = task.network.empty(4)

    def loss(trained):
        variables = {"params": trained, "frozen": params}
        carry = Carry(memory, {"plateau": ()})
        return task._loss(variables, batch, carry, jax.random.key(1), jnp.int32(0))[0]

    return loss, state.params


def test_lambda_acts_once_and_0_is_the_plain_model_bit_for_bit(folder, base):
    batch = jax.tree.map(jnp.asarray, next(_task(folder, base).batches()))
    band = {"phi_low": 2.0, "phi_high": 3.0}  # out of reach
    by_lambda = {}
    for value in (0.0, 0.5, 1.0):
        task = _task(folder, base, lambda_phi=value, **(band if value else {}))
        loss, trained = _loss(task, base, batch)
        by_lambda[value] = loss(trained), jax.grad(loss)(trained)
    task = _task(folder, base, lambda_phi=0.0)

    def plain(trained):
        given = task.network.variables(base.variables["params"], trained, train=True)
        memory = task.network.empty(4)
        logits = task.network.read(given, batch["tokens"][:, :-1], memory, jax.random.key(1)).logits
        return nats(logits, batch["tokens"][:, 1:]).sum()

    expected = plain(trained), jax.grad(plain)(trained)
    jax.tree.map(np.testing.assert_array_equal, by_lambda[0.0], expected)
    once = by_lambda[0.5][0] - by_lambda[0.0][0]
    assert once > 1
    np.testing.assert_allclose(by_lambda[1.0][0] - by_lambda[0.0][0], 2 * once, rtol=1e-4)
    more = jax.tree.map(jnp.subtract, by_lambda[1.0][1]["lora"], by_lambda[0.0][1]["lora"])
    assert max(np.abs(x).max() for x in jax.tree.leaves(more)) > 1e-3  # a is 0 where b is


@pytest.mark.parametrize("kind", ["gaussian", "components", "nets"])
def test_the_phi_term_moves_phi(folder, base, kind):
    """Steps of the term alone bring Φ to its band."""
    task = _task(folder, base, phi={"kind": kind})
    batch = next(task.batches())
    params, tokens = base.variables["params"], jnp.asarray(batch["tokens"][:, :-1])
    trained = task.init(jax.random.key(0)).params

    def phi(trained):
        return task.network.read(task.network.variables(params, trained), tokens, None).phi

    goal = float(phi(trained).mean()) * 1.3
    grad = jax.jit(jax.grad(lambda x: infinito.beyond(phi(x), goal, goal).mean()))
    before = float(phi(trained).mean())
    assert any(jnp.abs(x).max() > 0 for x in jax.tree.leaves(grad(trained)["lora"]))
    for _ in range(60):
        step = jax.tree.map(lambda g: 0.02 * jnp.sign(g), grad(trained))
        trained = jax.tree.map(jnp.subtract, trained, step)
    assert float(phi(trained).mean()) > before + 0.3 * (goal - before)


@pytest.mark.parametrize("shared", [False, True])
def test_it_learns_carries_a_memory_and_goes_on_exactly(folder, tmp_path, shared):
    memory = {"slots": 8, "parts": 2, "threshold": 0.05, "layer": 1, "shared": shared}
    config = _config(folder, memory=memory, eval_every=6, eval_samples=0, eval_new_tokens=128)
    if shared:
        config["phi"] = {"kind": "nets"}
        config["plateau"] = {"factor": 1.0}
    whole = experiment.train(config, tmp_path / "whole", progress=False)
    experiment.train({**config, "steps": 3}, tmp_path / "parts", progress=False)
    shutil.copytree(tmp_path / "parts", tmp_path / "sharded")
    parts = experiment.train(config, tmp_path / "parts", progress=False)
    jax.tree.map(np.testing.assert_array_equal, *[_kept(x.state) for x in (whole, parts)])
    assert _memory(whole.state, shared).writes.sum() > 0
    assert ("eval/bits_per_byte_other_memory" in whole.figures) is not shared
    # Rows and the rest go on, on other devices too.
    mesh = {"data": 2, "fsdp": 2}
    divided = experiment.train({**config, "mesh": mesh}, tmp_path / "sharded", progress=False)
    found, expected = (_memory(x.state, shared) for x in (divided, whole))
    np.testing.assert_array_equal(found.writes, expected.writes)
    # Six steps of training, in which each device adds up other numbers first.
    np.testing.assert_allclose(found.states, expected.states, rtol=1e-3, atol=5e-4)


def _kept(state):
    return jax.tree.map(np.asarray, (state.params, state.opt_state, state.rows, state.carry))


def _memory(state, shared):
    return state.carry["memory"] if shared else state.rows


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    return workdir, experiment.train(_config(folder), workdir, progress=False)


def test_figures_of_a_run(run):
    workdir, result = run
    names = {
        *("eval/perplexity", "eval/bits_per_byte", "eval/bits_per_byte_other_memory"),
        *("eval/bits_per_byte_no_memory", "eval/bits_per_byte_shuffled"),
        *("eval/phi_objective", "eval/phi_meter", "eval/phi_meter_time_shuffled"),
        *("eval/phi_meter_permuted", "eval/phi_meter_rescaled", "eval/phi_meter_gaussian"),
        *("eval/o_information", "eval/memory_use", "eval/memory_writes", "eval/repetition"),
    }
    assert names <= result.figures.keys()
    figures = result.figures
    assert figures["eval/phi_meter_rescaled"] == pytest.approx(figures["eval/phi_meter"], rel=1e-3)
    assert figures["eval/phi_meter"] > 0
    assert 0 <= figures["eval/repetition"] <= 1
    assert "no" in memory_verdict(figures) or "helps" in memory_verdict(figures)
    last = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = {k for x in last for k in x}
    assert {"train/phi_objective", "train/memory_use", "train/memory_threshold"} <= logged
    again = evaluate(workdir)
    assert again["eval/bits_per_byte"] == pytest.approx(figures["eval/bits_per_byte"], rel=1e-5)


def test_the_run_says_where_what_is_measured_does_not_follow():
    def said(trained, measured):
        both = zip(trained, measured, strict=True)
        return phi_verdict(*({"eval/phi_objective": x, "eval/phi_meter": y} for x, y in both))

    assert "WHAT IS MEASURED HAS NOT" in said((0.2, 0.4), (0.1, 0.1))
    assert "measured has risen with" in said((0.2, 0.4), (0.1, 0.11))
    assert "trained has not risen" in said((0.2, 0.2), (0.1, 0.2))


def test_a_base_s_own_parts_are_taken_over(run, folder, caplog):
    """What reads the memory is, where there is one; else the run says that it is not."""
    workdir, result = run
    base = hrm_jax.load(workdir)
    task = InfinitoTask(tasks.parse(_config(folder)), base=base)
    trained = task.init(jax.random.key(5)).params
    jax.tree.map(np.testing.assert_array_equal, trained["recall"], result.state.averaged["recall"])
    assert not caplog.records
    InfinitoTask(tasks.parse(_config(folder, memory={"slots": 0})), base=base)
    assert "its recall is not taken over: memory.slots is 0" in caplog.text


def test_the_model_writes_as_its_parts_read(run, base):
    workdir, result = run
    model = hrm_jax.load(workdir)
    found, report = model.written("El número", max_new_tokens=90, temperature=0.0, ignore_eos=True)
    assert len(found.tokens) == 90
    assert len(report["phi"]) == len(report["memory_use"]) == 3
    # Adapters that are merged say what adapters beside the model say.
    task = result.task
    trained = jax.tree.map(np.asarray, result.state.averaged)
    tokens = jnp.array([[*b"El n\xc3\xbamero"]])
    beside = task.network.variables(base.variables["params"], trained)
    one, other = (task.network.read(x, tokens, None).logits for x in (beside, model.variables))
    np.testing.assert_allclose(one, other, atol=1e-4)
    stop = found.tokens[5]
    ended, told = model.written(
        "El número", max_new_tokens=90, temperature=0.0, ignore_eos=True, stop_tokens=(stop,)
    )
    assert ended.tokens == found.tokens[: found.tokens.index(stop) + 1]
    assert ended.finish_reason == "stop"
    assert len(told["phi"]) < len(report["phi"])  # it did not go on
    penalised, _ = model.written(
        "El número", max_new_tokens=90, temperature=0.0, ignore_eos=True, repetition_penalty=2.0
    )
    groups = [len({found.tokens[i : i + 4] for i in range(87)}) for found in (found, penalised)]
    assert groups[1] > groups[0]
    with pytest.raises(ValueError, match="logprobs"):
        model.written("a", logprobs=2)


def test_it_is_exported_without_its_memory_and_says_so(run, tmp_path, caplog):
    model = hrm_jax.load(run[0])
    for kind in ("hugging_face", "peft"):
        caplog.clear()
        write_weights(model, tmp_path / kind, kind)
        assert "(recall) is left out" in caplog.text
    alone = load_pretrained(tmp_path / "hugging_face")
    adapted = merge_adapter(model.base, tmp_path / "peft")
    tokens = jnp.array([[*b"uno dos"]])
    expected = model.network.read(model.variables, tokens, None).logits
    for other in (alone, adapted):
        found = Transformer(other.config).apply(other.variables, tokens)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match="has a memory"):
        model.decoder  # noqa: B018 - is made when it is asked for


def test_the_learning_rate_falls_where_the_loss_does_not(folder, base):
    task = _task(
        folder, base, optimizer={"name": "adamw", "learning_rate": 1e-12, "warmup_steps": 0}
    )
    state = task.init(jax.random.key(0)).replace(frozen=base.variables["params"])
    batch = next(task.batches())
    step, rates = jax.jit(task.step), []
    for _ in range(8):
        state, metrics = step(state, batch)
        rates.append(float(metrics["learning_rate"][0]))
    assert rates[0] == pytest.approx(1e-12)
    assert rates[-1] <= 0.5e-12 * 1.01


def test_bad_configurations_are_named(folder, base):
    for more, said in (
        ({"data": {"length": 128}}, "64 positions"),
        ({"memory": {"layer": 3}}, "has 2"),
        ({"memory": {"slots": 2}}, "top_k"),
        ({"phi_low": 2.0}, "phi_low"),
        ({"phi": {"dimensions": 3}}, "dimensions"),
        ({"phi": {"kind": "nets"}, "phi_low": 1.1, "phi_high": 2.0}, "phi_low: 1.1, but phi.kind"),
        ({"lambda_phi": 0.0, "phi_low": 0.1}, "lambda_phi is 0"),
        ({"eval_samples": 0}, "eval_new_tokens"),
        ({"data": {"segments": 3}}, "data.kind is 'text'"),
    ):
        with pytest.raises(ConfigError, match=said):
            _task(folder, base, **more)
    scanned = dataclasses.replace(base, config=dataclasses.replace(GPT2, scan_layers=True))
    with pytest.raises(ConfigError, match="scanned"):
        _task(folder, scanned)


def test_streams_go_on_where_they_were():
    documents = Documents.of([b"abcdefgh" * 5, b"0123456789" * 3], ["a", "b"])
    stream = Stream(documents, ByteTokenizer())
    assert stream.begins.sum() == 2
    batches = TextStreams(stream, 10, 3, 0)
    first, second = batches[0], batches[1]
    np.testing.assert_array_equal(first["tokens"][:, -1], second["tokens"][:, 0])
    halves = [TextStreams(stream, 10, 4, 0, i, 2)[5]["tokens"] for i in range(2)]
    np.testing.assert_array_equal(
        np.concatenate(halves), TextStreams(stream, 10, 4, 0)[5]["tokens"]
    )
    # All places are seen, and documents begin where they do.
    seen = np.concatenate([batches[i]["tokens"][0, :-1] for i in range(8)])
    assert EOS in seen
    assert sum(batches[i]["fresh"][0] for i in range(9)) >= 2
    assert len(stream.tokens) < 90


def test_introductions_ask_for_the_name_that_was_said():
    documents = Documents.of(["ñandú y lobo ".encode() * 50], ["a"])
    stream = Stream(documents, ByteTokenizer())
    source = Introductions(stream, ByteTokenizer(), 32, 3, 4, seed=0)
    batches = [source[i] for i in range(6)]
    for row in range(4):
        parts = [{k: v[row] for k, v in batches[3 + i - row % 3].items()} for i in range(3)]
        assert [bool(x["fresh"]) for x in parts] == [True, False, False]
        assert not parts[0]["counted"].any()
        assert not parts[1]["counted"].any()
        tokens = np.concatenate([x["tokens"][:-1] for x in parts])
        text = bytes(x for x in tokens if x < 256).decode(errors="ignore")
        said = text.split("Me llamo ")[1].split(".")[0]
        assert said in NAMES
        asked = parts[2]["tokens"][1:][parts[2]["counted"]]
        assert bytes(asked.astype(np.uint8)).decode() == f"{said}."
    # Where the question stands does not tell the name.
    whole = source.texts(40)
    assert len({int(x.argmax()) for x in whole["counted"][:, 2]}) == 1
    assert len({x[:1] for x in NAMES}) == len(NAMES)
    with pytest.raises(ValueError, match="an introduction takes"):
        Introductions(stream, ByteTokenizer(), 16, 3, 4, seed=0)


def test_the_meter_and_its_controls_on_a_known_process():
    """States that are a linear process: Φ_G is the process' own, and 0 once time is shuffled."""
    config = MeterConfig(dimensions=4, projections=4, shrinkage=1e-4)
    random = np.random.default_rng(0)
    mixing = random.normal(size=(8, 8))
    mixing *= 0.9 / np.abs(np.linalg.eigvals(mixing)).max()
    states = [np.zeros((64, 8))]
    for _ in range(400):
        states.append(states[-1] @ mixing + random.normal(size=(64, 8)))
    series = jnp.asarray(np.stack(states[100:], axis=1), jnp.float32)
    told = meter.figures(config, meter.sums(config, series, jax.random.key(0)))
    assert told["eval/phi_meter"] > 0.1
    assert told["eval/phi_meter_time_shuffled"] < 0.01
    assert told["eval/phi_meter_permuted"] < 0.1 * told["eval/phi_meter"]
    assert told["eval/phi_meter_gaussian"] == pytest.approx(told["eval/phi_meter"], rel=0.1)
    assert told["eval/phi_meter_rescaled"] == pytest.approx(told["eval/phi_meter"], rel=1e-3)
    for field, value in (("dimensions", 2), ("projections", 3), ("shrinkage", 0.1), ("seed", 1)):
        other = dataclasses.replace(config, **{field: value})
        found = meter.figures(other, meter.sums(other, series, jax.random.key(0)))
        assert abs(found["eval/phi_meter"] - told["eval/phi_meter"]) > 1e-4, field


def test_the_benchmark_tells_base_random_weights_and_each_lambda(folder, capsys, monkeypatch):
    program = importlib.import_module("infinito")
    config = ConfigDict(_config(folder, eval_samples=1, eval_new_tokens=8, phi_low=0.6))
    monkeypatch.setattr(program.tasks, "file_config", lambda *_: config)
    program.main(["--lambdas=0,1", "--seeds=0,1", "--steps=1", "--batch=4"])
    printed = capsys.readouterr().out
    rows = [x.split("|")[1:-1] for x in printed.splitlines() if x.startswith("|")][2:]
    assert [x[0].strip() for x in rows] == ["base", "random weights", "λ 0", "λ 1"]
    for row in rows:
        perplexity, _, measured, *controls = (float(x.split("±")[0]) for x in row[1:])
        assert perplexity > 1
        assert measured > 0
        assert controls[3] == pytest.approx(measured, abs=2e-4)  # rescaled
    assert "λ 1 against λ 0, seed by seed" in printed


def test_the_benchmark_says_where_the_meter_does_not_follow():
    program = importlib.import_module("infinito")
    names = (*program.FIGURES, program.SAVED)

    def rows(measured):
        return [
            dict.fromkeys(names, 0.0) | {"phi_objective": 1.0 + i / 10, "phi_meter": x}
            for i, x in enumerate(measured)
        ]

    plain = [dict.fromkeys(names, 0.0)] * 3
    (up,) = program.verdicts({"λ 0": plain, "λ 1": rows((0.10, 0.11, 0.12))})
    assert "which rises with it" in up
    (not_up,) = program.verdicts({"λ 0": plain, "λ 1": rows((-0.1, 0.0, 0.12))})
    assert "does not rise with it" in not_up
