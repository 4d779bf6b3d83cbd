"""Instruction tuning: packed rows, what counts, what is saved, and that it learns to answer."""

import dataclasses
import json
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

import hrm_jax
from hrm_jax import experiment, tasks
from hrm_jax.data.errors import DataError
from hrm_jax.data.text.packing import Example, rows_of
from hrm_jax.data.text.templates import instruction
from hrm_jax.data.text.tokenizers import EOS, ByteTokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.interop.peft import load_adapter
from hrm_jax.interop.weights import write_weights
from hrm_jax.kernels.attention import attention
from hrm_jax.layers.packed import Packed, quantize
from hrm_jax.models import language
from hrm_jax.models.transformer import Transformer, TransformerConfig, stack_layers
from hrm_jax.tasks.language.instruct import InstructTask, nats
from hrm_jax.tasks.supervised import Carry
from hrm_jax.trained.evaluate import evaluate
from hrm_jax.trained.load import read_base

GPT2 = TransformerConfig(
    hidden_size=32, num_layers=2, num_heads=2, ffn_size=64, max_length=128, positions="learned",
    feed_forward="gelu", tie_head=True, dropout=0.0, init_std=0.3,
)  # fmt: skip
LLAMA = TransformerConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_size=64, max_length=128,
    positions="rotary", norm="rms", feed_forward="swiglu", bias=False, dropout=0.0,
)  # fmt: skip
FAST = {
    **{"name": "adamw", "learning_rate": 0.02, "warmup_steps": 2, "lr_min_ratio": 0.05},
    "weight_decay": 0.0,
}
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def base():
    params = language.init(GPT2, jax.random.key(0))
    return LanguageModel(GPT2, {"params": params}, ByteTokenizer(), "bytes", "tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory, base):
    """A folder with records, and the base as Hugging Face keeps it."""
    folder = tmp_path_factory.mktemp("instruct")
    lines = [{"instruction": f"Di {i}", "input": "", "output": "sí" * 3} for i in range(20)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "a.jsonl").write_text(text)
    (folder / "b.jsonl").write_text(text)  # copies
    save_pretrained(folder / "base", base.config, base.variables["params"], "bytes")
    return folder


def _config(files, **more):
    data = {"train": f"{files}/a.jsonl,{files}/b.jsonl", "length": 96, "held_out": 0.2}
    return {
        "task": "instruct",
        "model": str(files / "base"),
        "epochs": 0,
        "steps": 40,
        "batch_size": 4,
        "log_every": 10,
        "eval_every": 40,
        "checkpoint_every": 20,
        "eval_new_tokens": 16,
        "tensorboard": False,
        "lora": LORA,
        "optimizer": FAST,
        **more,
        "data": {**data, **more.get("data", {})},
    }


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """A finished run and its result."""
    workdir = tmp_path_factory.mktemp("runs") / "adapted"
    return workdir, experiment.train(_config(files), workdir, progress=False)


@pytest.mark.parametrize(
    ("config", "scan"), [(GPT2, False), (LLAMA, True)], ids=["gpt2", "scanned llama"]
)
def test_a_packed_example_is_read_as_if_alone(config, scan):
    params = language.init(config, jax.random.key(1))
    if scan:
        config = TransformerConfig(**{**vars(config), "scan_layers": True})
        params = stack_layers(params)
    random = np.random.default_rng(0)
    examples = [
        Example(random.integers(0, 256, p).tolist(), random.integers(0, 256, a).tolist())
        for p, a in ((5, 9), (12, 3), (7, 7), (20, 30), (4, 2))
    ]
    packed, alone = (rows_of(examples, 64, 256, pack) for pack in (True, False))
    assert len(packed) == 2
    apply = jax.jit(lambda t, s: Transformer(config).apply({"params": params}, t, segments=s))
    together = apply(packed.tokens, packed.segments)
    total, count = nats(together, packed.batch(np.arange(len(packed))))
    sums, counts = 0.0, 0
    for number, example in enumerate(examples):
        plain = apply(jnp.asarray(alone.tokens[[number], : len(example)]), None)
        tokens = [*example.prompt, *example.answer]
        (row, at), *_ = [
            (r, s) for r in range(len(packed)) for s in range(65 - len(example))
            if packed.tokens[r, s : s + len(example)].tolist() == tokens
        ]  # fmt: skip
        np.testing.assert_allclose(together[row, at : at + len(example)], plain[0], atol=1e-5)
        one, counted = nats(
            plain, {k: v[:, : len(example)] for k, v in alone.batch([number]).items()}
        )
        sums, counts = sums + float(one), counts + int(counted)
    assert counts == int(count) == sum(len(x.answer) for x in examples)
    assert float(total) == pytest.approx(sums, rel=1e-5)


@pytest.mark.parametrize("impl", ["pallas", "cudnn"])
def test_engines_without_segments_refuse_them(impl):
    q = jnp.zeros((1, 16, 1, 32))
    with pytest.raises(ValueError, match=f"impl='{impl}': has no segments"):
        attention(q, q, q, causal=True, segments=jnp.ones((1, 16), int), impl=impl)


def test_it_learns_to_answer_and_to_stop(trained, files):
    workdir, result = trained
    figures = result.figures
    assert figures["eval/loss"] < 0.2 < 4 < figures["eval/base_loss"]
    assert figures["eval/perplexity"] == pytest.approx(np.exp(figures["eval/loss"]))
    assert figures["eval/base_perplexity"] == pytest.approx(np.exp(figures["eval/base_loss"]))
    assert figures["eval/stops"] == 1.0
    assert figures["eval/answers"] == 4
    counts = result.task.identity.counts
    assert (counts["rows_of_files"], counts["training_records"]) == (40, 16)
    told = experiment.report(result, workdir)
    assert "100.0% of 4 answers end by themselves" in told
    model = hrm_jax.load(workdir)
    answer = model.answer("Di 77", max_new_tokens=16)
    assert (answer.text, answer.finish_reason) == ("sísísí", "stop")
    assert (
        model.generate(model.asking.prompt(instruction("Di 7")), temperature=0.0).text == "sísísí"
    )
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    shares = [line["train/counted"] for line in lines if "train/counted" in line]
    assert shares == pytest.approx([10 / 48] * len(shares), abs=0.02)


def test_a_checkpoint_holds_adapters_and_optimizer_alone(trained):
    workdir, result = trained
    adapters = sum(x.size * 4 for x in jax.tree.leaves(result.state.params))
    kept = sum(x.nbytes for x in jax.tree.leaves((result.state.params, result.state.opt_state)))
    assert kept <= 1.01 * 3 * adapters
    for step in (workdir / "checkpoints").iterdir():
        handler = ocp.StandardCheckpointHandler()
        trees = [handler.metadata(epath.Path(step / name)).tree for name in ("weights", "rest")]
        stored = sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(trees))
        assert kept <= stored <= kept + 64  # and a key and the step


def test_adapters_and_the_merged_model_are_exported(trained, base, tmp_path):
    workdir, result = trained
    model = hrm_jax.load(workdir)
    write_weights(model, tmp_path / "adapter", "peft")
    config, adapters = load_adapter(tmp_path / "adapter", base.variables["params"])
    assert (config.r, config.alpha) == (4, 8)
    jax.tree.map(np.testing.assert_array_equal, adapters["lora"], result.state.params["lora"])
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == model.base.name
    assert (tmp_path / "adapter" / "tokenizer.json").exists()
    write_weights(model, tmp_path / "merged", "hugging_face")
    merged = read_base(str(tmp_path / "merged")).variables["params"]
    jax.tree.map(np.testing.assert_array_equal, merged, model.variables["params"])
    with pytest.raises(ConfigError, match="--format=peft: the run has trained no adapters"):
        write_weights(base, tmp_path / "none", "peft")


def test_figures_are_those_of_the_run_again(trained):
    workdir, result = trained
    again = evaluate(workdir)
    for name in ("eval/loss", "eval/stops", "eval/answers"):
        assert again[name] == pytest.approx(result.figures[name], rel=1e-4)


def test_it_goes_on_exactly_and_only_with_the_same_base(trained, files, tmp_path):
    _, result = trained
    # The schedule is that of the whole run, so that it is stopped and not shortened.
    config = _config(files, control={"max_iterations": 1}, eval_every=20)
    assert experiment.train(config, tmp_path, progress=False).step == 20
    again = experiment.train(_config(files, eval_every=20), tmp_path, progress=False)
    assert again.step == 40
    jax.tree.map(np.testing.assert_array_equal, again.state.params, result.state.params)
    other = language.init(GPT2, jax.random.key(5))
    save_pretrained(tmp_path / "other", GPT2, other, "bytes")
    config = _config(files, model=str(tmp_path / "other"), steps=60)
    with pytest.raises(ValueError, match="data frozen"):
        experiment.train(config, tmp_path, progress=False)


def test_peft_reads_what_a_run_exports(trained, files, tmp_path):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = hrm_jax.load(trained[0])
    write_weights(model, tmp_path / "adapter", "peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(files / "base")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    tokens = np.array([model.asking.prompt(instruction("Di 77"))], np.int32)
    ours = Transformer(model.config).apply(model.variables, jnp.asarray(tokens))
    with torch.no_grad():
        found = theirs(input_ids=torch.from_numpy(tokens).long()).logits.numpy()
    np.testing.assert_allclose(found, ours, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "bytes_a_weight"), [("bfloat16", 2), ("int8", 1), ("nf4", 0.5)], ids=str
)
def test_a_base_may_be_kept_in_fewer_bits(files, base, kind, bytes_a_weight, tmp_path):
    config = _config(files, base_dtype=kind, steps=8, eval_every=8, checkpoint_every=8)
    result = experiment.train(config, tmp_path, progress=False)
    params = base.variables["params"]
    kernel = result.state.frozen["layers_0"]["ffn"]["down_proj"]["kernel"]
    stored = sum(x.nbytes for x in jax.tree.leaves(kernel))
    size = params["layers_0"]["ffn"]["down_proj"]["kernel"].size
    assert bytes_a_weight * size <= stored <= 1.3 * bytes_a_weight * size
    assert result.figures["eval/loss"] < result.figures["eval/base_loss"]
    small = jax.tree.map(lambda x: x.astype("bfloat16"), params)
    if kind != "bfloat16":
        small = quantize(params, kind, "float32")
        is_packed = lambda x: isinstance(x, Packed)  # noqa: E731
        small = jax.tree.map(lambda x: x.unpack() if is_packed(x) else x, small, is_leaf=is_packed)
    loss = result.task.mean_loss(small, None, result.task.held_out()[0])
    assert result.figures["eval/base_loss"] == pytest.approx(loss, rel=1e-5)


def test_all_weights_may_be_trained(files, tmp_path):
    config = _config(
        files, adapt="full", lora={}, steps=8, optimizer={**FAST, "learning_rate": 3e-3}
    )
    result = experiment.train({**config, "eval_every": 8}, tmp_path, progress=False)
    assert result.figures["eval/loss"] < result.figures["eval/base_loss"]
    assert result.state.frozen == {}
    model = hrm_jax.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.variables["params"], result.state.params)
    assert model.trained is None


def test_steps_come_from_epochs(files, base):
    task = InstructTask(tasks.parse(_config(files, epochs=3, steps=1000)), None, base)
    rows = len(task._rows)
    assert task.config.steps == -(-3 * rows // 4)
    assert next(task.batches())["steps"].tolist() == [task.config.steps] * 4
    longer = InstructTask(tasks.parse(_config(files, epochs=5, steps=1000)), None, base)
    assert longer.program == task.program
    heavier = dataclasses.replace(task.given, end_weight=5.0)
    assert type(task)(heavier, base=task.base).program != task.program


def test_the_last_two_tokens_of_an_answer_can_count_more(files, base):
    plain = InstructTask(tasks.parse(_config(files)), None, base)
    heavier = InstructTask(dataclasses.replace(plain.given, end_weight=3.0), None, base)
    batch = jax.tree.map(jnp.asarray, next(plain.batches()))
    marked = np.zeros_like(batch["counted"])
    for row, at in jnp.argwhere(batch["counted"] & (batch["tokens"] == EOS)):
        marked[row, at - 1 : at + 1] = True  # the answer's last letter, and its end
    assert marked.sum() >= 2 * plain.given.batch_size
    state = jax.jit(plain.init)(jax.random.key(0))
    variables = {"params": state.params, "frozen": base.variables["params"]}
    adapted = plain.variables(*variables.values())
    logits = Transformer(plain.sizes).apply(adapted, batch["tokens"], segments=batch["segments"])
    more = nats(logits, {**batch, "counted": marked})[0]

    def found(task):
        objective, (_, metrics) = task._loss(
            variables, batch, Carry(), jax.random.key(0), jnp.int32(0)
        )
        return float(objective), float(metrics["loss"][0])

    objective, told = found(plain)
    assert objective == told
    assert found(heavier) == (pytest.approx(objective + 2 * float(more), rel=1e-5), told)


def test_training_and_generation_share_one_text(files, base):
    task = InstructTask(tasks.parse(_config(files)), None, base)
    batch, _ = task.held_out()
    record = task.parts[1].records[0]
    tokens = task.template.prompt(record.prompt)
    assert batch["prompts"][0, : batch["prompt_lengths"][0]].tolist() == tokens
    example = task.encoded[1].examples[0]
    assert example.prompt == tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"train": ""}}, r"data\.train: expected a file of records; or data\.branch"),
        ({"data": {"branch": "physics"}}, r"data\.train and data\.branch are both given"),
        ({"data": {"length": 200}}, r"data\.length: 200 tokens, but .* has 128 positions"),
        ({"eval_new_tokens": 128}, r"eval_new_tokens: 129 tokens"),
        ({"epochs": 3, "steps": 7}, r"config\.steps: 7 has no effect: config\.epochs is set"),
        ({"adapt": "full"}, r"config\.lora\.\w+: .* has no effect: config\.adapt is 'full'"),
        ({"init_from": "x"}, r"config\.init_from: 'x' has no effect"),
        ({"data": {"template": "chat"}}, r"'chat', but the model has no chat template"),
        ({"lora": {"target_modules": ["w_proj"]}}, r"lora\.target_modules: no layer fits 'w_proj'"),
        ({"model": "spanish-gpt3"}, r"config\.model: spanish-gpt3: no folder with a model"),
        ({"data": {"too_long": "refuse", "length": 40}}, r"20 of|16 of 16 records have more than"),
    ],
)  # fmt: skip
def test_bad_configurations_are_named(files, tmp_path, change, message):
    with pytest.raises((ConfigError, DataError), match=message):
        experiment.train(_config(files, **change), tmp_path, progress=False)


def test_held_out_files_take_their_prompts_from_training(files, tmp_path, base):
    lines = (files / "a.jsonl").read_text().splitlines()[:5]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    data = {"test": str(tmp_path / "test.jsonl"), "held_out": 0.1}
    task = InstructTask(tasks.parse(_config(files, data=data)), None, base)
    train, test = task.parts
    assert (len(train), len(test)) == (15, 5)
    assert pathlib.Path(test.records[0].where).name == "test.jsonl:1"
