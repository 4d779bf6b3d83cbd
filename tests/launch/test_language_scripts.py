"""Language models from the command line: train, resume, generate, evaluate, fine-tune, export."""

import json
import math
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import hrm_jax
from hrm_jax import experiment, tasks
from hrm_jax.data.errors import DataError
from hrm_jax.engine.engine import Event
from hrm_jax.engine.language import LanguageModel
from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import read_state_dict
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.interop.hugging_face_tokenizers import write_tokenizer
from hrm_jax.interop.peft import save_adapter
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models import language
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.trained.load import load_pretrained, merge_adapter
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import WorkdirError

SIZES = {
    "hidden_size": 16,
    "num_heads": 2,
    "ffn_size": 32,
    "feed_forward": "swiglu",
    "positions": "rotary",
    "dropout": 0.0,
    "max_length": 96,
}
PLANNED = {
    **SIZES,
    "name": "planner_executor",
    "planner_layers": 1,
    "executor_layers": 1,
    "planner_length": 16,
    "plan_size": 8,
    "num_codes": 4,
}
LLAMA_SIZES = {**SIZES, "num_layers": 1, "norm": "rms", "bias": False}
LLAMA = {**LLAMA_SIZES, "name": "transformer"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "abc.txt"
    path.write_text("uno dos tres " * 100)
    return str(path)


def _config(text, model=PLANNED, **more):
    return {
        "task": "text",
        "steps": 4,
        "batch_size": 8,
        "eval_every": 2,
        "checkpoint_every": 2,
        "log_every": 2,
        "tensorboard": False,
        "data": {"train": text, "test": text, "length": 24, "eval_stride": 12},
        "model": model,
        # Otherwise it would depend on the length of the run.
        "plan": {"last_temperature": 1.0} if model is PLANNED else {},
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "warmup_steps": 1, "ema": 0.5},
        **more,
    }


@pytest.fixture(scope="module")
def pretrained(text, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "lm"
    result = experiment.train(_config(text), workdir, progress=False)
    report = experiment.report(result, workdir)
    assert re.search(r"bits per byte", report)
    assert re.search(r"The plan carries (nothing|something)", report)
    assert report.count("→") == 3
    return workdir


def test_resuming_goes_on_exactly(text, pretrained, tmp_path):
    experiment.train(_config(text, steps=2), tmp_path, progress=False)
    experiment.train(_config(text, steps=4), tmp_path, progress=False)

    def figures(folder):
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return {x["step"]: x["eval/bits_per_byte"] for x in lines if "eval/bits_per_byte" in x}

    assert figures(tmp_path)[4] == pytest.approx(figures(pretrained)[4], rel=1e-6)


@pytest.fixture(scope="module")
def adapter(pretrained, tmp_path_factory):
    """A folder with an adapter that changes every answer, and the model with it."""
    model = hrm_jax.load(pretrained)
    config, params = LoraConfig(target_modules="all-linear"), model.variables["params"]
    fresh = lora.init(config, params, jax.random.key(0))
    drawn = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), fresh)
    folder = tmp_path_factory.mktemp("adapter") / "it"
    save_adapter(folder, config, params, drawn)
    return folder, merge_adapter(model, folder)


def test_generate_with_an_adapter(script, pretrained, adapter, capsys):
    folder, model = adapter
    flags = ["--prompt=uno ", "--temperature=0", "--max_new_tokens=8"]
    assert script("generate").main([f"--workdir={pretrained}", f"--adapter={folder}", *flags]) == 0
    said = capsys.readouterr().out
    assert said == model.generate("uno ", temperature=0, max_new_tokens=8).text + "\n"
    plain = hrm_jax.load(pretrained).generate("uno ", temperature=0, max_new_tokens=8).text
    assert said != plain + "\n"
    assert script("generate").main([f"--workdir={pretrained}", "--adapter=none", *flags]) == 2
    assert "none: expected adapter_model.safetensors" in capsys.readouterr().err


def test_an_adapter_with_a_word_of_its_own(script, tmp_path, capsys):
    """Its embeddings have more rows than the model's, and its tokenizer has what they are for."""
    model, larger = (TransformerConfig(**LLAMA_SIZES, vocab_size=x) for x in (260, 262))
    save_pretrained(tmp_path / "base", model, language.init(model, jax.random.key(0)), "bytes")
    config = LoraConfig(r=2, modules_to_save=("embed_tokens", "lm_head"))
    params = language.init(larger, jax.random.key(1))
    adapters = lora.init(config, params, jax.random.key(2))
    folder = tmp_path / "adapter"
    save_adapter(folder, config, params, adapters)
    write_tokenizer(folder, "bytes")
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    word = {**settings["added_tokens"][0], "id": 260, "content": "¡hola!", "special": False}
    settings["added_tokens"].append(word)
    path.write_text(json.dumps(settings))
    found = merge_adapter(load_pretrained(tmp_path / "base"), folder)
    assert found.config.vocab_size == 262
    assert found.tokenizer.encode("¡hola!") == [260]
    flags = ["--prompt=¡hola!", "--temperature=0", "--max_new_tokens=2"]
    both = [f"--model={tmp_path / 'base'}", f"--adapter={folder}"]
    assert script("generate").main([*both, *flags]) == 0
    said = capsys.readouterr().out
    assert said == found.generate("¡hola!", temperature=0, max_new_tokens=2).text + "\n"
    settings["added_tokens"] += [{**word, "id": 261 + i, "content": f"¡{i}!"} for i in range(2)]
    path.write_text(json.dumps(settings))
    assert script("generate").main([*both, *flags]) == 2
    assert "embeddings of 262 tokens, but its tokenizer has 263" in capsys.readouterr().err


def test_serve_names_its_adapters(script, pretrained, adapter, capsys):
    serve, run = script("serve"), f"--workdir={pretrained}"
    with pytest.raises(SystemExit):
        serve.main([run, "--adapter=folder"])
    assert "expected NAME=FOLDER" in capsys.readouterr().err
    twice = [f"--adapter=a={adapter[0]}"] * 2
    assert serve.main([run, "--port=0", *twice]) == 2
    assert "'a' is given twice" in capsys.readouterr().err


def test_generate(script, pretrained, capsys):
    def run(*flags):
        code = script("generate").main([f"--workdir={pretrained}", "--prompt=uno ", *flags])
        return code, *capsys.readouterr()

    one = run("--max_new_tokens=12", "--seed=1")
    assert one[0] == 0
    assert one == run("--max_new_tokens=12", "--seed=1")
    others = [
        run("--max_new_tokens=12", "--seed=2"),
        run("--max_new_tokens=12", "--seed=1", "--temperature=0"),
        run("--max_new_tokens=5", "--seed=1"),
        run("--max_new_tokens=12", "--seed=1", "--top_k=2"),
        run("--max_new_tokens=12", "--seed=1", "--top_p=0.05"),
        run("--max_new_tokens=12", "--seed=1", "--repetition_penalty=50"),
    ]
    assert len({out for _, out, _ in (one, *others)}) >= 5
    code, _, err = run("--temperature=-1")
    assert code == 2
    assert "temperature" in err


def test_an_interrupted_text_is_kept(script, tmp_path, capsys):
    def stream(tokens, **_):
        yield Event(65, "A", -0.5)
        raise KeyboardInterrupt

    closed = []
    engine = SimpleNamespace(close=lambda: closed.append(True))
    told = script("generate").written(SimpleNamespace(stream=stream, engine=engine), [1], {})
    assert (told["text"], told["interrupted"]) == ("A", True)
    assert told["perplexity"] == pytest.approx(math.exp(0.5))
    with pytest.raises(KeyboardInterrupt):
        script("generate").written(SimpleNamespace(stream=_interrupted, engine=engine), [1], {})
    assert closed == [True, True]


def _interrupted(tokens, **_):
    raise KeyboardInterrupt


def test_evaluate(script, pretrained, text, capsys):
    assert script("evaluate").main([f"--workdir={pretrained}", f"--data={text}"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["eval/bytes"] == 1300
    assert {"eval/bits_per_byte_shuffled_plan", "eval/bits_per_byte_no_plan"} <= set(figures)
    for flag in ("votes=2", "slots=64", "halting=q", "seed=0", "max_steps=1", "last=2"):
        assert script("evaluate").main([f"--workdir={pretrained}", f"--{flag}"]) == 2
        assert f"error: {flag.split('=')[0]}: not for a language model" in capsys.readouterr().err


def test_export_and_back(script, pretrained, text, tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    assert script("export").main([f"--workdir={pretrained}", f"--output={output}"]) == 0
    assert str(output) in capsys.readouterr().out
    tensors = read_state_dict(output)
    params = hrm_jax.load(pretrained).variables["params"]
    table = params["executor"]["embed_tokens"]["embedding"]
    assert any(t.shape == table.shape and np.array_equal(t, table) for t in tensors.values())
    folder = tmp_path / "folder"
    flags = [f"--workdir={pretrained}", f"--output={folder}", "--format=hugging_face"]
    assert script("export").main(flags) == 2  # a planner–executor is no Llama
    assert not folder.exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of Hugging Face's, whose chat template refuses a system."""
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("hugging_face") / "tiny"
    config = TransformerConfig(**LLAMA_SIZES)
    save_pretrained(folder, config, language.init(config, jax.random.key(0)), "bytes")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<|bos|>{{ m.content }}{% endfor %}"
    )
    return folder


def test_a_folder_of_hugging_face_writes(script, folder, pretrained, capsys):
    flags = ["--prompt=uno", "--max_new_tokens=4", "--temperature=0"]

    def run(*more):
        code = script("generate").main([*flags, *more])
        return code, *capsys.readouterr()

    model = f"--model={folder}"
    plain, chat = run(model), run(model, "--chat")
    assert plain[0] == chat[0] == 0
    loaded = hrm_jax.load(folder)
    assert loaded.name == loaded.decoder.name == "tiny"
    assert plain[1] == loaded.generate("uno", max_new_tokens=4, temperature=0.0).text + "\n"
    started = loaded.generate([257, *b"uno"], max_new_tokens=4, temperature=0.0)
    assert chat[1] == started.text + "\n"
    assert run(model, "--dtype=bfloat16")[0] == 0
    refused = {
        ("--chat", "--system=Sé breve"): "the chat template: System role not supported",
        ("--system=Sé breve",): "--system: only with --chat",
        ("--chat", "--special_tokens"): "--special_tokens: not with --chat",
        ("--checkpoint=best",): "--checkpoint: only with --workdir",
    }
    for more, message in refused.items():
        code, _, error = run(model, *more)
        assert code == 2
        assert message in error
    code, _, error = run(f"--workdir={pretrained}", "--dtype=float32")
    assert code == 2
    assert "--dtype: only with --model" in error


@pytest.mark.parametrize("name", ["generate", "serve"])
def test_a_workdir_or_a_model(script, name, folder, pretrained, capsys):
    for given in ([], [f"--workdir={pretrained}", f"--model={folder}"]):
        with pytest.raises(SystemExit, match="2"):
            script(name).main([*given, *(["--prompt=x"] if name == "generate" else [])])
        error = capsys.readouterr().err
        assert "--model" in error
        assert "--workdir" in error


def test_a_folder_of_hugging_face_has_no_checkpoints(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"a model's folder has no checkpoint 'best'"):
        hrm_jax.load(folder, "best")
    weights = load_pretrained(folder, "bfloat16")
    assert weights.config.dtype == "bfloat16"
    assert {str(x.dtype) for x in jax.tree.leaves(weights.variables)} == {"bfloat16"}
    small = json.loads((folder / "config.json").read_text()) | {"vocab_size": 200}
    shutil.copytree(folder, tmp_path / "small")
    (tmp_path / "small" / "config.json").write_text(json.dumps(small))
    with pytest.raises(ConfigError, match=r"embed_tokens.weight: expected \[200, 16\]"):
        hrm_jax.load(tmp_path / "small")


def test_hugging_face_and_back_again(script, text, tmp_path):
    workdir, folder = tmp_path / "llama", tmp_path / "folder"
    experiment.train(_config(text, LLAMA), workdir, progress=False)
    flags = [f"--workdir={workdir}", f"--output={folder}", "--format=hugging_face"]
    assert script("export").main(flags) == 0
    tuned = tmp_path / "tuned"
    config = _config(text, LLAMA, init_from=str(folder), steps=1)
    config["optimizer"] = {**config["optimizer"], "learning_rate": 1e-12, "weight_decay": 0.0}
    experiment.train(config, tuned, progress=False)
    before, after = (hrm_jax.load(x).variables["params"] for x in (workdir, tuned))
    np.testing.assert_allclose(
        before["embed_tokens"]["embedding"], after["embed_tokens"]["embedding"], atol=1e-6
    )


def test_fine_tuning_takes_sizes_and_weights(text, pretrained, tmp_path):
    config = _config(text, task="pairs", init_from=str(pretrained), steps=1)
    config["data"] = {"numbers_below": 1000, "num_train": 40, "num_test": 4, "eval_pairs": 4}
    config["model"] = {"name": "planner_executor", "max_length": 128}
    workdir = tmp_path / "ft"
    result = experiment.train(config, workdir, progress=False)
    assert "eval/exact_match" in result.figures
    model = hrm_jax.load(workdir)
    assert isinstance(model, LanguageModel)
    assert (model.config.hidden_size, model.config.max_length) == (16, 128)
    assert model.generate("21", max_new_tokens=3, temperature=0.0).prompt_tokens >= 2
    assert experiment.report(result, workdir).count("→") == 3
    again = experiment.train({**config, "steps": 2}, workdir, progress=False)  # resumes
    assert again.step == 2


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Makes the folder of a byte-level tokenizer that does not put its BOS in front."""
    package = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tokenizer") / "of_bytes"
    write_tokenizer(folder, "bytes")
    settings = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**settings, "post_processor": None}))
    (folder / "generation_config.json").write_text('{"eos_token_id": [258, 120]}')
    assert package.Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids == [97]
    return folder


@pytest.mark.parametrize("task", ["text", "pairs"])
def test_a_workdir_is_whole(script, text, tokenizer, task, tmp_path, monkeypatch, capsys):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    shutil.copytree(tokenizer, here / "tok")
    (here / "train.txt").write_text("uno dos tres " * 100)
    (here / "test.txt").write_text("cuatro cinco " * 9)
    for name in ("train.tsv", "test.tsv"):
        (here / name).write_text(f"uno {name}\tone\ndos {name}\ttwo\n")
    monkeypatch.chdir(here)
    suffix, sizes = ("txt", {"length": 24, "eval_stride": 12}) if task == "text" else ("tsv", {})
    data = {"train": f"train.{suffix}", "test": f"test.{suffix}", "tokenizer": "tok", **sizes}
    config = _config(text, LLAMA, task=task, steps=1, data=data)
    figures = experiment.train(config, "run", progress=False).figures
    (here / "run").rename(elsewhere)
    shutil.rmtree(here)
    monkeypatch.chdir(elsewhere)
    model = hrm_jax.load(elsewhere)
    assert model.tokenizer.around == ((), ())
    assert model.tokenizer.eos_ids == (258, 120)
    assert model.generate("uno", max_new_tokens=2).prompt_tokens == 3
    assert script("generate").main([f"--workdir={elsewhere}", "--prompt=uno"]) == 0
    capsys.readouterr()
    flags = ["--prompt=<|eos|>uno", "--temperature=0", "--max_new_tokens=4", "--special_tokens"]
    assert script("generate").main([f"--workdir={elsewhere}", *flags]) == 0
    marked = model.generate([258, *b"uno"], temperature=0, max_new_tokens=4).text
    assert capsys.readouterr().out == marked + "\n"
    assert script("evaluate").main([f"--workdir={elsewhere}"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["eval/bits_per_byte"] == pytest.approx(figures["eval/bits_per_byte"], rel=1e-5)
    # Of a version that kept no tokenizer, and always put BOS in front.
    shutil.rmtree(elsewhere / "data")
    with pytest.raises(DataError, match="tok: there is no such file, and the run has no copy"):
        hrm_jax.load(elsewhere)
    shutil.copytree(tokenizer, elsewhere / "tok")
    assert hrm_jax.load(elsewhere).generate("uno", max_new_tokens=2).prompt_tokens == 4


def test_a_run_goes_on_with_its_own_tokenizer(text, tokenizer, tmp_path):
    folder = shutil.copytree(tokenizer, tmp_path / "tok")
    config = _config(text, LLAMA, steps=2)
    config["data"] = {**config["data"], "tokenizer": str(folder)}
    experiment.train(config, tmp_path / "run", progress=False)
    shutil.rmtree(folder)
    assert experiment.train({**config, "steps": 3}, tmp_path / "run", progress=False).step == 3


def test_held_out_text_that_is_trained_on_is_told_of(text, tmp_path, caplog):
    assert tasks.build(tasks.parse(_config(text))).documents
    assert "1 of 1 held-out documents" in caplog.text
    (tmp_path / "a.tsv").write_text("a\tb\nc\td\n")
    data = {"train": str(tmp_path / "a.tsv"), "test": str(tmp_path / "a.tsv")}
    assert tasks.build(tasks.parse(_config(text, task="pairs", data=data))).pairs
    assert "2 of 2 held-out pairs" in caplog.text


def test_bad_beginnings_are_named(text, tmp_path):
    with pytest.raises(WorkdirError, match=r"init_from.*nowhere"):
        experiment.train(_config(text, init_from="nowhere"), tmp_path, progress=False)
    bad = _config(text, {**PLANNED, "num_codes": 1})
    with pytest.raises(ConfigError, match=r"num_codes"):
        experiment.train(bad, tmp_path, progress=False)
