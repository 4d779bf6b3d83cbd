"""Relational networks in files, and in PyTorch."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.fields import ConfigError
from hrm_jax.interop.files import SUFFIXES, read_state_dict
from hrm_jax.interop.relational import FORMATS, export_relational, import_relational
from hrm_jax.interop.weights import read_weights, write_weights
from hrm_jax.models.relational import MLPConfig, RelationalConfig, init, network
from hrm_jax.tasks.relational.model import RelationalModel

STATES = RelationalConfig(
    object_dim=10, question_dim=11, relation_dim=6, hidden_dim=5, object_layers=1, f_layers=2
)
PIXELS = dataclasses.replace(STATES, channels=(3, 4), object_layers=0, aggregate="sum")
MODELS = {
    "states": (STATES, (6, 10)),
    "pixels": (PIXELS, (13, 9, 3)),
    "mlp": (MLPConfig(**dataclasses.asdict(STATES)), (6, 10)),
}


def _draw(config, shape):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init(config, key, shape), jax.random.key(0))
    return jax.tree.map(lambda x: random.normal(0, 0.5, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("config", "shape"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_reads_back_exactly(format, config, shape, assert_same, tmp_path):
    if format == "torch":
        pytest.importorskip("torch")
    params = _draw(config, shape)
    output = tmp_path / f"m{SUFFIXES[format][0]}"
    written = export_relational(config, params, shape, output, format)
    assert written == [output, tmp_path / "m.config.json"]
    read, found = import_relational(output)
    assert read == config
    assert_same(found, params)


@pytest.mark.parametrize(("config", "shape"), list(MODELS.values())[:2], ids=list(MODELS)[:2])
def test_pytorch_modules_of_these_names_give_the_same_answers(config, shape, tmp_path):
    torch = pytest.importorskip("torch")
    params = _draw(config, shape)
    export_relational(config, params, shape, tmp_path / "m.safetensors", "safetensors")
    tensors = {
        name: torch.tensor(x) for name, x in read_state_dict(tmp_path / "m.safetensors").items()
    }

    def layers(prefix, kind, *options):
        """The modules of a list, with their weights."""
        made = torch.nn.Module()
        made.layers = torch.nn.ModuleList()
        own = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(prefix)}
        for i in itertools.count():
            if f"layers.{i}.weight" not in own:
                break
            out, into = own[f"layers.{i}.weight"].shape[:2]
            made.layers.append(kind(into, out, *options))
            if f"norms_{i}.weight" in own:
                setattr(made, f"norms_{i}", torch.nn.LayerNorm(out))
        made.load_state_dict(own, strict=True)
        return made

    random = np.random.default_rng(1)
    inputs = random.normal(0, 1, (2, *shape)).astype(np.float32)
    asked = random.normal(0, 1, (2, 3, 11)).astype(np.float32)
    x, q = torch.tensor(inputs), torch.tensor(asked)
    if config.channels:
        inputs = random.integers(0, 256, (2, *shape), np.uint8)
        x = 1 - torch.tensor(inputs).float().permute(0, 3, 1, 2) / 255
        cells = layers("cells", torch.nn.Conv2d, 3, 2)
        for i, layer in enumerate(cells.layers):
            # As TensorFlow and JAX pad: what is left over goes to the end.
            high, wide = (max(0, 2 * (-(-n // 2) - 1) + 3 - n) for n in x.shape[2:])
            x = torch.nn.functional.pad(
                x, (wide // 2, wide - wide // 2, high // 2, high - high // 2)
            )
            normed = getattr(cells, f"norms_{i}")(layer(x).permute(0, 2, 3, 1))
            x = torch.relu(normed).permute(0, 3, 1, 2)
        high, wide = x.shape[2:]
        down, right = torch.meshgrid(
            torch.linspace(-1, 1, high), torch.linspace(-1, 1, wide), indexing="ij"
        )
        places = torch.stack([right, down]).expand(2, -1, -1, -1)
        x = torch.cat([x, places], dim=1).flatten(2).transpose(1, 2)
    x = x[:, None].expand(-1, 3, -1, -1)  # worlds, questions, objects
    q = q[:, :, None].expand(-1, -1, x.shape[2], -1)
    if config.object_layers:
        for layer in layers("objects", torch.nn.Linear).layers:
            x = torch.relu(layer(torch.cat([x, q], dim=-1)))
    number = x.shape[2]
    first, second = zip(*itertools.permutations(range(number), 2), strict=True)
    pairs = torch.cat([x[:, :, first], x[:, :, second], q[:, :, first]], dim=-1)
    for layer in layers("g", torch.nn.Linear).layers:
        pairs = torch.relu(layer(pairs))
    related = pairs.sum(2) if config.aggregate == "sum" else pairs.mean(2)
    *hidden, last = layers("f", torch.nn.Linear).layers
    for layer in hidden:
        related = torch.relu(layer(related))
    wanted = last(related).detach().numpy()
    found = network(config).apply({"params": params}, jnp.asarray(inputs), jnp.asarray(asked))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_loaded_model_is_written_and_read_for_a_run(assert_same, tmp_path):
    config = tasks.parse({"task": "sort_of_clevr"})
    model = RelationalModel(STATES, {"params": _draw(STATES, (6, 10))}, config.data)
    write_weights(model, tmp_path / "m.npz", "numpy")
    sizes, variables = read_weights(tmp_path / "m.npz", config)
    assert sizes == STATES
    assert_same(variables["params"], jax.device_get(model.variables["params"]))


def test_bad_files_are_named(tmp_path):
    params = _draw(STATES, (6, 10))
    with pytest.raises(ValueError, match=r"expected one of safetensors.*got 'onnx'"):
        export_relational(STATES, params, (6, 10), tmp_path / "m.weights.h5", "onnx")
    assert not list(tmp_path.iterdir())
    del params["f"]
    export_relational(STATES, params, (6, 10), tmp_path / "m.npz", "numpy")
    with pytest.raises(ConfigError, match=r"missing: f\.layers\.0\.weight \[5, 6\]"):
        import_relational(tmp_path / "m.npz")
