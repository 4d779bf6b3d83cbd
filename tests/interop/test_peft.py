"""Adapters of Hugging Face's peft, which judges ours."""

import dataclasses
import functools
import json
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hrm_jax.data.errors import DataError
from hrm_jax.fields import ConfigError
from hrm_jax.interop.hugging_face import to_hugging_face
from hrm_jax.interop.peft import load_adapter, save_adapter
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models import language
from hrm_jax.models.transformer import Transformer, TransformerConfig, stack_layers

GPT2 = TransformerConfig(
    vocab_size=40, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24, max_length=16,
    positions="learned", feed_forward="gelu", tie_head=True, dropout=0.0,
)  # fmt: skip
LLAMA = dataclasses.replace(
    GPT2, positions="rotary", norm="rms", feed_forward="swiglu", bias=True, tie_head=False,
    num_kv_heads=1,
)  # fmt: skip
MODELS = {"gpt2": GPT2, "llama": LLAMA}
TOKENS = jnp.asarray(np.random.default_rng(1).integers(0, 40, (3, 8)))
KINDS = {
    "lora": LoraConfig(),
    "rslora": LoraConfig(use_rslora=True, r=3, target_modules="all-linear", bias="lora_only"),
    "dora": LoraConfig(use_dora=True, r=2, target_modules="all-linear", bias="all"),
    "patterns": LoraConfig(
        r=2,
        target_modules=r".*\.(o_proj|down_proj)|.*\.0\.ffn\.up_proj",
        rank_pattern={"down_proj": 3, r".*\.0\..*": 9},
        alpha_pattern={"attention.o_proj": 5.0},
        modules_to_save=("embed_tokens", "final_norm"),
    ),
}


@functools.cache
def base(config, key=0):
    params = language.init(config, jax.random.key(key))
    return moved(params, 0.1)


def moved(tree, much):
    """With noise, so that nothing is 0 or 1."""
    leaves, kind = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    pairs = zip(leaves, keys, strict=True)
    return jax.tree.unflatten(kind, [x + much * jax.random.normal(k, x.shape) for x, k in pairs])


@functools.partial(jax.jit, static_argnums=0)
def logits(model, variables, tokens=TOKENS):
    return Transformer(model).apply(variables, tokens)


@pytest.fixture(scope="module")
def peft():
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions warn of each other at import
        return pytest.importorskip("peft")


@pytest.fixture(scope="module")
def theirs(peft):
    """Makes the base as a model of transformers'."""
    import torch
    import transformers

    def make(model, params):
        tensors, settings = to_hugging_face(model, params)
        kind = getattr(transformers, settings["architectures"][0])
        made = kind(transformers.AutoConfig.for_model(**settings)).eval()
        made.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, False)
        return made

    return make


def their_logits(model):
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor(TOKENS.tolist())).logits.numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_they_read_ours_and_so_do_we(name, kind, peft, theirs, tmp_path, assert_same):
    model, config = MODELS[name], KINDS[kind]
    params = base(model)
    adapters = moved(lora.init(config, params, jax.random.key(1)), 0.2)
    save_adapter(tmp_path / "adapter", config, params, adapters)
    ours = logits(model, lora.variables(config, params, adapters))
    assert np.abs(ours - logits(model, {"params": params})).max() > 0.1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")
        read = peft.PeftModel.from_pretrained(theirs(model, params), tmp_path / "adapter")
    np.testing.assert_allclose(their_logits(read), ours, atol=1e-4)
    again, same = load_adapter(tmp_path / "adapter", params)
    assert_same(same, adapters)
    np.testing.assert_array_equal(logits(model, lora.variables(again, params, same)), ours)


@pytest.fixture(scope="module")
def make(peft, theirs):
    """Makes a model of peft's that has adapters of which nothing is 0."""
    import torch

    def made(name, **fields):
        base_model = theirs(MODELS[name], base(MODELS[name]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(fan_in_fan_out|is_gradient_check)")
            adapted = peft.get_peft_model(
                base_model, peft.LoraConfig(task_type="CAUSAL_LM", **fields)
            )
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return adapted

    return made


THEIRS = {
    "plain": {"lora_alpha": 3},
    "dora": {"use_dora": True, "target_modules": "all-linear", "bias": "all"},
    "chosen": {
        "use_rslora": True,
        "target_modules": ["o_proj", "down_proj", "c_proj"],
        "layers_to_transform": [1],
        "rank_pattern": {"mlp.c_proj|down_proj": 3},
        "alpha_pattern": {"c_proj|o_proj": 7},
    },
}


@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("name", MODELS)
def test_we_read_theirs(name, kind, make, tmp_path):
    model = MODELS[name]
    adapted = make(name, **THEIRS[kind])
    adapted.save_pretrained(tmp_path)
    config, adapters = load_adapter(tmp_path, base(model))
    ours = logits(model, lora.variables(config, base(model), adapters))
    np.testing.assert_allclose(ours, their_logits(adapted), atol=1e-4)


def test_we_read_names_with_the_adapters_and_a_pickle_of_tensors(make, tmp_path):
    import torch

    adapted = make("gpt2", use_dora=True)
    adapted.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    tensors = {k: v for k, v in adapted.state_dict().items() if ".default" in k}
    assert "lora_A.default.weight" in min(tensors)
    torch.save(tensors, tmp_path / "adapter_model.bin")
    params = stack_layers(base(GPT2))
    config, adapters = load_adapter(tmp_path, params)
    scanned = dataclasses.replace(GPT2, scan_layers=True)
    ours = logits(scanned, lora.variables(config, params, adapters))
    np.testing.assert_allclose(ours, their_logits(adapted), atol=1e-4)
    torch.save({"x": pathlib.PurePosixPath("x")}, tmp_path / "adapter_model.bin")
    with pytest.raises(DataError, match=r"adapter_model\.bin: refused"):
        load_adapter(tmp_path, params)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_steps_are_theirs(name, kind, make, tmp_path):
    import torch

    model, params = MODELS[name], base(MODELS[name])
    bias = "lora_only" if name == "llama" else "none"  # a GPT-2's keys have gradients of 0
    adapted = make(name, use_dora=kind == "dora", target_modules="all-linear", bias=bias)
    adapted.save_pretrained(tmp_path / "before")
    config, adapters = load_adapter(tmp_path / "before", params)
    rule = optax.adamw(1e-3, eps=1e-5, weight_decay=0.1)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    their_rule = torch.optim.AdamW(trained, 1e-3, eps=1e-5, weight_decay=0.1)

    @jax.jit
    def step(adapters, state):
        def loss(adapters):
            found = logits(model, lora.variables(config, params, adapters, train=True))
            losses = optax.softmax_cross_entropy_with_integer_labels(found[:, :-1], TOKENS[:, 1:])
            return losses.mean()

        value, grads = jax.value_and_grad(loss)(adapters)
        updates, state = rule.update(grads, state, adapters)
        return optax.apply_updates(adapters, updates), state, value, grads

    state, tokens = rule.init(adapters), torch.tensor(TOKENS.tolist())
    for number in range(4):
        their_loss = adapted(tokens, labels=tokens).loss
        their_rule.zero_grad()
        their_loss.backward()
        adapters, state, loss, grads = step(adapters, state)
        np.testing.assert_allclose(loss, their_loss.item(), atol=1e-5)
        if number == 0:
            with torch.no_grad():
                kept = [p.clone() for p in trained]
                for p in trained:
                    p.copy_(p.grad)
                adapted.save_pretrained(tmp_path / "gradients")
                for p, value in zip(trained, kept, strict=True):
                    p.copy_(value)
            _, their_grads = load_adapter(tmp_path / "gradients", params)
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, atol=1e-5), grads, their_grads
            )
        their_rule.step()
    adapted.save_pretrained(tmp_path / "after")
    _, their_adapters = load_adapter(tmp_path / "after", params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), adapters, their_adapters)


def test_a_larger_vocabulary(peft, theirs, tmp_path):
    model = dataclasses.replace(LLAMA, vocab_size=43)
    config = LoraConfig(r=2, modules_to_save=("embed_tokens", "lm_head"))
    adapters = moved(lora.init(config, base(model), jax.random.key(1)), 0.2)
    save_adapter(tmp_path / "adapter", config, base(model), adapters, base_model="a name")
    read, same = load_adapter(tmp_path / "adapter", base(LLAMA))
    ours = logits(model, lora.variables(read, base(LLAMA), same))
    resized = theirs(LLAMA, base(LLAMA))
    resized.resize_token_embeddings(43, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")
        found = peft.PeftModel.from_pretrained(resized, tmp_path / "adapter")
    np.testing.assert_allclose(their_logits(found), ours, atol=1e-4)


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path):
        config = LoraConfig(r=2)
        adapters = lora.init(config, base(LLAMA), jax.random.key(1))
        save_adapter(tmp_path / "adapter", config, base(LLAMA), adapters)
        return tmp_path / "adapter"

    def change(self, folder, **fields):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("lora_bias", True),
            ("layer_replication", [[0, 1], [0, 1]]),
            ("use_qalora", True),
            ("corda_config", {"corda_method": "kpm"}),
            ("init_lora_weights", "pissa"),
            ("peft_type", "ADALORA"),
            ("trainable_token_indices", [1]),
            ("target_parameters", ["x"]),
            ("of_later_versions", 3),
            ("r", "8"),
            ("r", 0),
            ("bias", "some"),
            ("rank_pattern", {"q_proj": "a"}),
            ("modules_to_save", "lm_head"),
            ("target_modules", 3),
        ],
    )
    def test_fields(self, folder, field, value):
        self.change(folder, **{field: value})
        with pytest.raises(ConfigError, match=rf"adapter_config\.json.*{field}"):
            load_adapter(folder, base(LLAMA))

    def test_other_bases(self, folder):
        with pytest.raises(ConfigError, match="the base has no layer model"):
            load_adapter(folder, base(GPT2))
        self.change(folder, r=3)
        with pytest.raises(ConfigError, match=r"lora_A.weight: expected \[3, 16\], found \[2, 16"):
            load_adapter(folder, base(LLAMA))

    def test_damaged_files(self, folder):
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(DataError, match=r"adapter_model\.safetensors"):
            load_adapter(folder, base(LLAMA))
        (folder / "adapter_config.json").write_text("{")
        with pytest.raises(DataError, match=r"adapter_config\.json:1: not valid JSON"):
            load_adapter(folder, base(LLAMA))
        path.unlink()
        with pytest.raises(FileNotFoundError, match="expected adapter_model"):
            load_adapter(folder, base(LLAMA))


def test_every_field_that_peft_writes_is_written(peft, tmp_path):
    config = LoraConfig()
    adapters = lora.init(config, base(GPT2), jax.random.key(1))
    save_adapter(tmp_path / "adapter", config, base(GPT2), adapters)
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    plain = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["attn.c_attn"], r=8)
    plain.lora_alpha, plain.lora_dropout = 16, 0.05
    plain.inference_mode = plain.fan_in_fan_out = True
    plain.save_pretrained(tmp_path / "theirs")
    theirs = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    if peft.__version__ == "0.21.2":
        assert written == theirs
    assert written.keys() <= theirs.keys()
