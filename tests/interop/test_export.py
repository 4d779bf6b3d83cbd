"""Exporting weights."""

import importlib.util
import pathlib
import types

import numpy as np
import pytest
import yaml

import hrm_jax
from hrm_jax.fields import ConfigError
from hrm_jax.interop.export import export
from hrm_jax.interop.files import FORMATS, SUFFIXES, read_state_dict
from hrm_jax.interop.hrm_names import from_reference
from hrm_jax.interop.reference_config import from_reference_config

_PACKAGES = {"torch": "torch", "keras": "h5py"}


@pytest.fixture(params=FORMATS)
def format(request):
    if request.param in _PACKAGES:
        pytest.importorskip(_PACKAGES[request.param])
    return request.param


class TestExport:
    def test_files_read_back_exactly(
        self, format, small_config, make_variables, assert_same, tmp_path
    ):
        variables = make_variables(small_config)
        output = tmp_path / "sub" / f"my.model{SUFFIXES[format][0]}"
        weights, config = export(small_config, variables, output, format)
        assert (weights, config) == (output, tmp_path / "sub" / "my.model.config.yaml")
        tensors = read_state_dict(weights)
        read = from_reference_config(config, tensors)
        assert read == small_config
        assert_same(from_reference(tensors, read), variables)

    def test_torch_file_is_the_references(
        self, parity_folder, parity_config, make_variables, tmp_path
    ):
        torch = pytest.importorskip("torch")
        config = from_reference_config(parity_config)
        export(config, make_variables(config), tmp_path / "m.pt", "torch")
        ours = torch.load(tmp_path / "m.pt", weights_only=True)
        theirs = torch.load(parity_folder / "state_dict.pt", weights_only=True)
        assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
            k: (v.shape, v.dtype) for k, v in theirs.items()
        }

    def test_reference_weights_survive(self, parity_folder, parity_config, format, tmp_path):
        theirs = read_state_dict(parity_folder / "state_dict.npz")
        config = from_reference_config(parity_config)
        output = tmp_path / f"m{SUFFIXES[format][0]}"
        export(config, from_reference(theirs, config), output, format)
        ours = read_state_dict(output)
        assert ours.keys() == theirs.keys()
        assert all(ours[k].tobytes() == theirs[k].tobytes() for k in ours)

    def test_extra_settings_are_written(self, small_config, make_variables, tmp_path):
        extra = {"loss_type": "softmax_cross_entropy", "lr": 1e-4}
        _, config = export(
            small_config, make_variables(small_config), tmp_path / "m.npz", "numpy", extra
        )
        written = yaml.safe_load(config.read_text())
        assert written["lr"] == 1e-4
        assert written["arch"]["loss"]["loss_type"] == "softmax_cross_entropy"

    def test_bad_arguments_write_nothing(self, small_config, make_variables, tmp_path):
        variables = make_variables(small_config)
        with pytest.raises(ValueError, match=r"expected m\.npz"):
            export(small_config, variables, tmp_path / "m.pt", "numpy")
        with pytest.raises(ConfigError, match="seq_len"):
            export(small_config, variables, tmp_path / "m.npz", "numpy", {"seq_len": 3})
        assert not list(tmp_path.iterdir())


def test_keras_loads_it(small_config, make_variables, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    Dense, Embedding, Layer = keras.layers.Dense, keras.layers.Embedding, keras.layers.Layer
    variables = make_variables(small_config)
    params = variables["params"]

    def dense(kernel, **kwargs):
        layer = Dense(kernel.shape[1], **kwargs)
        layer.build((None, kernel.shape[0]))
        return layer

    def embedding(table):
        layer = Embedding(*table.shape)
        layer.build()
        return layer

    def group(tree, layer):
        for name, leaf in tree.items():
            setattr(layer, name, dense(leaf["kernel"], use_bias=False))
        return layer

    class Block(Layer):
        def __init__(self, tree):
            super().__init__()
            self.self_attn = group(tree["self_attn"], Layer())
            self.mlp = group(tree["mlp"], Layer())

    class Level(Layer):
        def __init__(self, tree):
            super().__init__()
            self.layers = [Block(tree[f"layers_{i}"]) for i in range(len(tree))]

    class HRM(Layer):
        def __init__(self):
            super().__init__()
            for name in ("H_init", "L_init"):
                setattr(self, name, self.add_weight(shape=(8,), trainable=False, name=name))
            self.embed_tokens = embedding(params["embed_tokens"]["embedding"])
            self.embed_pos = embedding(params["embed_pos"]["embedding"])
            self.puzzle_emb = embedding(variables["tables"]["puzzle_emb"])
            self.lm_head = dense(params["lm_head"]["kernel"], use_bias=False)
            self.q_head = dense(params["q_head"]["kernel"])
            self.H_level, self.L_level = Level(params["H_level"]), Level(params["L_level"])

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.hrm = HRM()
            self.built = True

    export(small_config, variables, tmp_path / "m.weights.h5", "keras")
    model = Model()
    model.load_weights(tmp_path / "m.weights.h5")
    hrm = model.hrm
    second, theirs = hrm.L_level.layers[1], params["L_level"]["layers_1"]
    for ours, expected in (
        (hrm.H_init, variables["constants"]["H_init"]),
        (hrm.L_init, variables["constants"]["L_init"]),
        (hrm.embed_tokens.embeddings, params["embed_tokens"]["embedding"]),
        (hrm.puzzle_emb.embeddings, variables["tables"]["puzzle_emb"]),
        (hrm.q_head.kernel, params["q_head"]["kernel"]),
        (hrm.q_head.bias, params["q_head"]["bias"]),
        (second.self_attn.qkv_proj.kernel, theirs["self_attn"]["qkv_proj"]["kernel"]),
        (second.mlp.down_proj.kernel, theirs["mlp"]["down_proj"]["kernel"]),
    ):
        np.testing.assert_array_equal(np.asarray(ours), expected)


class TestLaunch:
    @pytest.fixture
    def main(self, small_config, make_variables, monkeypatch):
        def load(workdir, *, checkpoint):
            if workdir != "run":
                raise FileNotFoundError(f"{workdir}: no such work directory")
            assert checkpoint in ("last", "best", 300)
            return types.SimpleNamespace(
                config=small_config, variables=make_variables(small_config)
            )

        monkeypatch.setattr(hrm_jax, "load", load, raising=False)
        path = pathlib.Path(__file__).parents[2] / "launch" / "export.py"
        spec = importlib.util.spec_from_file_location("launch_export", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    @pytest.mark.parametrize("checkpoint", [[], ["--checkpoint=best"], ["--checkpoint=300"]])
    def test_writes_and_names_its_files(self, checkpoint, main, tmp_path, capsys):
        output = tmp_path / "m.safetensors"
        assert main(["--workdir=run", f"--output={output}", *checkpoint]) == 0
        assert capsys.readouterr().out.split() == [str(output), str(tmp_path / "m.config.yaml")]
        assert "model.inner.H_init" in read_state_dict(output)

    @pytest.mark.parametrize(
        "args",
        [["--workdir=nowhere", "--output=m.safetensors"], ["--workdir=run", "--output=m.pt"]],
    )
    def test_errors_are_one_line(self, args, main, capsys):
        assert main(args) == 2
        error = capsys.readouterr().err
        assert error.startswith("export: error: ")
        assert error.count("\n") == 1

    def test_checkpoint_is_checked(self, main, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["--workdir=run", "--output=m.npz", "--checkpoint=newest"])
        assert "--checkpoint" in capsys.readouterr().err
