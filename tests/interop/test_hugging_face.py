"""GPT-2 and Llama of Hugging Face's transformers."""

import dataclasses
import functools
import json
import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax.data.text.tokenizers import ByteTokenizer, around, load_tokenizer
from hrm_jax.fields import ConfigError
from hrm_jax.interop import hugging_face
from hrm_jax.interop.hugging_face import from_hugging_face, save_pretrained, to_hugging_face
from hrm_jax.interop.language import parameter_shapes
from hrm_jax.models.transformer import Transformer, TransformerConfig

GPT2 = TransformerConfig(
    vocab_size=260, hidden_size=32, num_layers=2, num_heads=4, ffn_size=48, max_length=24,
    positions="learned", feed_forward="gelu", tie_head=True,
)  # fmt: skip
LLAMA = dataclasses.replace(
    GPT2, positions="rotary", rope_theta=500.0, norm="rms", norm_eps=1e-6, feed_forward="swiglu",
    bias=False, tie_head=False, num_kv_heads=2, dropout=0.0,
)  # fmt: skip
MODELS = {
    "gpt2": GPT2,
    "gpt2_untied_relu": dataclasses.replace(GPT2, tie_head=False, feed_forward="relu"),
    "llama": LLAMA,
    "llama_wide_heads_scanned": dataclasses.replace(
        LLAMA, tie_head=True, bias=True, head_dim=16, feed_forward="geglu", scan_layers=True
    ),
}


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions warn of each other at import
        return pytest.importorskip("transformers")


@pytest.fixture(params=MODELS)
def config(request):
    return MODELS[request.param]


@functools.cache
def _draw(config):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def _tokens(*shape):
    return np.random.default_rng(1).integers(0, 256, shape)


@functools.cache
def _compiled(config):
    return jax.jit(lambda params, tokens: Transformer(config).apply({"params": params}, tokens))


def _our_logits(config, params, tokens):
    return np.asarray(_compiled(config)(params, jnp.asarray(tokens, jnp.int32)))


def _their_logits(model, tokens):
    import torch

    with torch.no_grad():
        return model.eval()(torch.from_numpy(tokens)).logits.float().numpy()


def _assert_same_logits(config, params, model):
    tokens = _tokens(2, 24)
    theirs = _their_logits(model, tokens)
    assert np.ptp(theirs) > 0.5
    np.testing.assert_allclose(_our_logits(config, params, tokens), theirs, atol=1e-4)


class TestTheyReadOurs:
    @pytest.fixture
    def folder(self, config, tmp_path):
        save_pretrained(tmp_path / "model", config, _draw(config), "bytes")
        return tmp_path / "model"

    def test_logits_and_greedy_text_are_the_same(self, folder, config, transformers):
        import torch

        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True
        )
        assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        params = _draw(config)
        _assert_same_logits(config, params, model)
        text = _tokens(2, 24)
        text[:, 6:] = ByteTokenizer.pad_id
        prompt = torch.from_numpy(text[:, :6])
        theirs = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=18, do_sample=False
        ).numpy()
        for place in range(6, 24):
            following = np.argmax(_our_logits(config, params, text)[:, place - 1], axis=-1)
            ended = (text[:, :place] == ByteTokenizer.eos_id).any(axis=1)
            text[:, place] = np.where(ended, ByteTokenizer.pad_id, following)
        np.testing.assert_array_equal(text[:, : theirs.shape[1]], theirs)

    def test_config_knows_the_special_tokens(self, folder, transformers):
        config = transformers.AutoConfig.from_pretrained(folder)
        ids = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
        assert ids == (257, 258, 256)


class TestWeReadTheirs:
    @pytest.fixture
    def gpt2(self, transformers):
        return self._model(
            transformers.GPT2Config(
                vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=24, resid_pdrop=0.2,
                layer_norm_epsilon=1e-3, bos_token_id=0, eos_token_id=0,
            ),
            transformers.GPT2LMHeadModel,
        )  # fmt: skip

    @pytest.fixture
    def llama(self, transformers):
        def make(**settings):
            values = {
                **{"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48},
                **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
                **{"max_position_embeddings": 24, "rms_norm_eps": 1e-3, "rope_theta": 300.0},
            }
            config = transformers.LlamaConfig(**(values | settings))
            return self._model(config, transformers.LlamaForCausalLM)

        return make

    @staticmethod
    def _model(config, kind):
        import torch

        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():  # norms of ones and biases of zeros would tell little
            torch.nn.init.normal_(parameter, 0, 0.3)
        return model

    @pytest.mark.parametrize("pieces", [False, True])
    def test_gpt2(self, gpt2, pieces, tmp_path):
        gpt2.save_pretrained(tmp_path, max_shard_size="20KB" if pieces else "5GB")
        assert (tmp_path / "model.safetensors.index.json").exists() == pieces
        config, params = from_hugging_face(tmp_path)
        assert config == dataclasses.replace(GPT2, ffn_size=128, norm_eps=1e-3, dropout=0.2)
        _assert_same_logits(config, params, gpt2)

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"tie_word_embeddings": True, "attention_bias": True},
            {"mlp_bias": True, "num_key_value_heads": None, "hidden_act": "gelu"},
            {"attention_bias": True, "mlp_bias": True, "head_dim": 6},
        ],
    )
    def test_llama(self, llama, settings, tmp_path):
        model = llama(**settings)
        model.save_pretrained(tmp_path)
        config, params = from_hugging_face(tmp_path)
        assert config.rope_theta == 300
        assert config.key_heads == (2 if settings.get("num_key_value_heads", 2) else 4)
        _assert_same_logits(config, params, model)

    def test_our_export_of_it_is_the_same_again(self, llama, assert_same):
        model = llama(attention_bias=True, mlp_bias=True)
        theirs = {k: v.numpy() for k, v in model.state_dict().items()}
        tensors, settings = to_hugging_face(
            *from_hugging_face(model.state_dict(), model.config.to_dict()), bos_token_id=1
        )
        assert_same(tensors, theirs)
        same = model.config.to_dict()
        same.pop("rope_theta", None)  # which only transformers 4 has
        assert {k: settings[k] for k in settings if k in same} == {
            **{k: same[k] for k in settings if k in same},
            **{"architectures": ["LlamaForCausalLM"], "dtype": "float32"},
            **{"bos_token_id": 1, "eos_token_id": None},
        }

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    @pytest.mark.parametrize("suffix", ["bin", "safetensors"])
    def test_narrow_weights_of_either_file(self, llama, dtype, suffix, tmp_path):
        import torch

        model = llama().to(getattr(torch, dtype))
        model.save_pretrained(tmp_path)
        if suffix == "bin":
            (tmp_path / "model.safetensors").unlink()
            torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        config, params = from_hugging_face(tmp_path)
        assert config.dtype == "float32"
        wide = llama()  # not model.float(): its wavelengths were narrowed too
        wide.load_state_dict(model.state_dict())
        _assert_same_logits(config, params, wide)

    def test_names_of_old_files(self, gpt2, assert_same):
        settings = gpt2.config.to_dict()
        _, params = from_hugging_face(gpt2.state_dict(), settings)  # with a tied head
        old = {
            k.removeprefix("transformer."): v
            for k, v in gpt2.state_dict().items()
            if k != "lm_head.weight"
        }
        old["h.0.attn.bias"] = np.tril(np.ones((1, 1, 24, 24), bool))
        old["h.0.attn.masked_bias"] = np.array(-1e4, np.float32)
        assert_same(from_hugging_face(old, settings)[1], params)


def test_there_and_back(config, assert_same):
    params = _draw(config)
    tensors, settings = to_hugging_face(config, params)
    settings = json.loads(json.dumps(settings))
    read, found = from_hugging_face(tensors, settings)
    assert read == dataclasses.replace(config, scan_layers=False)
    again, _ = to_hugging_face(read, found)
    assert_same(again, tensors)


def test_a_folder_needs_neither_torch_nor_transformers(config, tmp_path, monkeypatch):
    for package in ("torch", "transformers", "tokenizers"):
        monkeypatch.setitem(sys.modules, package, None)
    written = save_pretrained(tmp_path / "model", config, _draw(config), "bytes")
    assert [path.name for path in written] == [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    ]
    read, _ = from_hugging_face(tmp_path / "model")
    assert read == dataclasses.replace(config, scan_layers=False)


class TestSettings:
    @pytest.mark.parametrize(
        ("config", "changes", "message"),
        [
            (GPT2, {"positions": "sinusoidal"}, "model.positions: .* got 'sinusoidal'"),
            (GPT2, {"norm": "rms"}, "model.norm: GPT-2 has 'layer', got 'rms'"),
            (GPT2, {"feed_forward": "swiglu"}, "model.feed_forward: GPT-2 has 'gelu' or 'relu'"),
            (GPT2, {"bias": False}, "model.bias: GPT-2 has True"),
            (GPT2, {"num_kv_heads": 2}, "model.num_kv_heads: GPT-2 has 0 or 4, got 2"),
            (GPT2, {"head_dim": 16}, "model.head_dim: GPT-2 has 0 or 8, got 16"),
            (LLAMA, {"norm": "layer"}, "model.norm: Llama has 'rms'"),
            (LLAMA, {"causal": False}, "model.causal: Llama has True"),
            (LLAMA, {"feed_forward": "gelu"}, "model.feed_forward: Llama has 'swiglu' or 'geglu'"),
            (LLAMA, {"hidden_size": 36, "num_heads": 8, "head_dim": 4}, "model.num_heads: 8 does"),
        ],
    )
    def test_others_are_refused(self, config, changes, message):
        config = dataclasses.replace(config, **changes)
        with pytest.raises(ConfigError, match=message):
            to_hugging_face(config, {})

    @pytest.mark.parametrize(
        ("config", "changes", "message"),
        [
            (GPT2, {"model_type": "bert"}, "model_type: expected 'gpt2', .*, got 'bert'"),
            (GPT2, {"activation_function": "gelu"}, "activation_function: not supported"),
            (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx:"),
            (GPT2, {"scale_attn_weights": False}, "scale_attn_weights: False is not supported"),
            (GPT2, {"n_embd": None}, "hidden_size: expected int, got None"),
            (LLAMA, {"sliding_window": 4096}, "sliding_window: 4096 is not supported"),
            (LLAMA, {"hidden_act": "relu"}, "hidden_act: not supported, expected one of 'silu'"),
            (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config"),
            (LLAMA, {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
            (LLAMA, {"num_attention_heads": 3}, "num_kv_heads: 2 does not divide"),
        ],
    )
    def test_what_is_not_supported_is_named(self, config, changes, message):
        tensors, settings = to_hugging_face(config, _draw(config))
        with pytest.raises(ConfigError, match=message):
            from_hugging_face(tensors, settings | changes)

    def test_missing_sizes_are_named(self):
        tensors, settings = to_hugging_face(LLAMA, _draw(LLAMA))
        del settings["intermediate_size"]
        with pytest.raises(ConfigError, match="config: intermediate_size: missing"):
            from_hugging_face(tensors, settings)
        with pytest.raises(ConfigError, match="expected the content"):
            from_hugging_face(tensors)

    @pytest.mark.parametrize("new", [False, True])
    def test_rotary_base_of_either_version(self, new):
        tensors, settings = to_hugging_face(LLAMA, _draw(LLAMA))
        if new:
            del settings["rope_theta"]
        else:
            del settings["rope_parameters"]
            settings["rope_scaling"] = None
        assert from_hugging_face(tensors, settings)[0].rope_theta == 500

    def test_defaults_are_those_of_transformers(self, transformers):
        for config, kind in ((GPT2, transformers.GPT2Config), (LLAMA, transformers.LlamaConfig)):
            tensors, settings = to_hugging_face(config, _draw(config))
            sizes = {k: v for k, v in settings.items() if isinstance(v, int) and v > 1}
            sizes |= {"model_type": settings["model_type"]}
            if config is LLAMA:
                tensors.pop("lm_head.weight", None)
                sizes |= {"tie_word_embeddings": True}
            theirs = kind(**sizes).to_dict()
            assert from_hugging_face(tensors, sizes)[0] == from_hugging_face(tensors, theirs)[0]


class TestTensors:
    def test_all_that_does_not_fit_is_listed_by_their_names(self):
        tensors, settings = to_hugging_face(GPT2, _draw(GPT2))
        del tensors["transformer.h.1.attn.c_attn.bias"]
        tensors["transformer.h.2.ln_1.bias"] = np.zeros(32, np.float32)
        tensors["transformer.h.0.mlp.c_fc.weight"] = np.zeros((48, 32), np.float32)
        with pytest.raises(ConfigError) as error:
            from_hugging_face(tensors, settings)
        assert str(error.value).splitlines()[1:] == [
            "  missing: transformer.h.1.attn.c_attn.bias [96]",
            "  unexpected: transformer.h.2.ln_1.bias [32]",
            "  wrong shape: transformer.h.0.mlp.c_fc.weight: expected [32, 48], found [48, 32]",
        ]

    def test_a_bias_that_is_not_announced_is_unexpected(self):
        config = dataclasses.replace(LLAMA, bias=True)
        tensors, settings = to_hugging_face(config, _draw(config))
        settings["mlp_bias"] = False
        with pytest.raises(ConfigError, match=r"unexpected: model.layers.0.mlp.down_proj.bias"):
            from_hugging_face(tensors, settings)

    def test_a_tied_head_must_be_the_embedding(self):
        tensors, settings = to_hugging_face(GPT2, _draw(GPT2))
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1
        with pytest.raises(ConfigError, match=r"tie_word_embeddings is true, but lm_head.weight"):
            from_hugging_face(tensors, settings)

    def test_an_untied_head_must_be_there(self):
        tensors, settings = to_hugging_face(LLAMA, _draw(LLAMA))
        del tensors["lm_head.weight"]
        with pytest.raises(ConfigError, match=r"missing: lm_head.weight \[260, 32\]"):
            from_hugging_face(tensors, settings)

    def test_names_must_differ_in_more_than_the_prefix(self):
        tensors, settings = to_hugging_face(LLAMA, _draw(LLAMA))
        tensors["norm.weight"] = tensors["model.norm.weight"]
        with pytest.raises(ConfigError, match=r"'model.norm.weight' twice"):
            from_hugging_face(tensors, settings)


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        save_pretrained(tmp_path / "model", LLAMA, _draw(LLAMA))
        return tmp_path / "model"

    def test_missing_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="or pytorch_model"):
            from_hugging_face(folder)
        with pytest.raises(FileNotFoundError, match=r"nowhere.config\.json"):
            from_hugging_face(folder / "nowhere")

    @pytest.mark.parametrize("place", ["../model/model.safetensors", "/etc/passwd"])
    def test_pieces_are_in_the_folder(self, place, folder):
        os.rename(folder / "model.safetensors", folder / "piece.safetensors")
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": place}}))
        with pytest.raises(ValueError, match=r"index\.json: weight_map: expected files beside it"):
            from_hugging_face(folder)
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": "missing.safetensors"}}))
        with pytest.raises(FileNotFoundError, match="missing"):
            from_hugging_face(folder)
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": "piece.safetensors"}}))
        assert from_hugging_face(folder)[0] == LLAMA

    def test_a_folder_is_replaced_as_a_whole(self, folder):
        (folder / "tokenizer.json").write_text("of another model")
        save_pretrained(folder, GPT2, _draw(GPT2))
        assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors"]
        assert from_hugging_face(folder)[0] == GPT2
        assert os.listdir(folder.parent) == ["model"]

    def test_what_is_not_ours_is_kept(self, folder):
        (folder / "notes.txt").touch()
        with pytest.raises(FileExistsError, match=r"model: holds 'notes\.txt'"):
            save_pretrained(folder, GPT2, _draw(GPT2))
        assert from_hugging_face(folder)[0] == LLAMA

    def test_a_failure_leaves_the_old_folder(self, folder, monkeypatch):
        def full(*args):
            raise OSError("disk full")

        for name in ("write_json", "write_tokenizer"):
            with monkeypatch.context() as patch:
                patch.setattr(hugging_face, name, full)
                with pytest.raises(OSError, match="disk full"):
                    save_pretrained(folder, GPT2, _draw(GPT2), "bytes")
            assert from_hugging_face(folder)[0] == LLAMA
            assert os.listdir(folder.parent) == ["model"]

    def test_the_vocabulary_must_hold_the_tokenizer(self, tmp_path):
        config = dataclasses.replace(GPT2, vocab_size=259)
        with pytest.raises(ConfigError, match=r"model\.vocab_size: 259, but the tokenizer has 260"):
            save_pretrained(tmp_path / "model", config, _draw(config), "bytes")
        assert not os.listdir(tmp_path)


class TestTokenizers:
    @pytest.fixture
    def saved(self, tmp_path):
        save_pretrained(tmp_path / "model", LLAMA, _draw(LLAMA), "bytes")
        return tmp_path / "model"

    TEXTS = ("", "El niño — 好 🙂\n\n  dos\ttabs", "a <|eos|> b</s>", "\0\x7f\xa0\xad\xff")

    def test_bytes_in_transformers(self, saved, transformers):
        theirs, ours = transformers.AutoTokenizer.from_pretrained(saved), ByteTokenizer()
        for text in self.TEXTS:
            ids = theirs(text).input_ids
            assert ids == [257, *ours.encode(text)]
            assert theirs.decode(ids[1:]) == text
        assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (257, 258, 256)
        ids = [257, 72, 195, 40, 240, 159, 258, 259, 256]
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)

    def test_bytes_as_a_pretrained_tokenizer_of_ours(self, saved):
        pytest.importorskip("tokenizers")
        theirs, ours = load_tokenizer(str(saved)), ByteTokenizer()
        for name in ("vocab_size", "bos_id", "eos_id", "pad_id"):
            assert getattr(theirs, name) == getattr(ours, name)
        assert around(theirs) == around(ours) == ((257,), ())
        assert all(theirs.encode(text) == ours.encode(text) for text in self.TEXTS)

    def test_files_of_a_tokenizer_are_copied(self, saved, tmp_path):
        pytest.importorskip("tokenizers")
        again = tmp_path / "again"
        save_pretrained(again, LLAMA, _draw(LLAMA), saved)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (again / name).read_bytes() == (saved / name).read_bytes()
        assert json.loads((again / "config.json").read_text())["eos_token_id"] == 258
        (saved / "tokenizer_config.json").unlink()
        save_pretrained(again, LLAMA, _draw(LLAMA), saved / "tokenizer.json")
        settings = json.loads((again / "config.json").read_text())
        assert settings["bos_token_id"] is None
        assert settings["eos_token_id"] == 258  # as config.json beside it says
        assert "tokenizer_class" in json.loads((again / "tokenizer_config.json").read_text())
