"""Damaged files: every reader answers with an error that names the file, or with what it held."""

import json
import math
import random
import warnings
import zipfile

import numpy as np
import pytest
import yaml

from hrm_jax.data.errors import DataError
from hrm_jax.fields import to_mapping
from hrm_jax.files import read_json
from hrm_jax.interop.files import FORMATS, SUFFIXES, read_state_dict, write_state_dict
from hrm_jax.interop.hugging_face_config import from_settings, to_settings
from hrm_jax.interop.language import import_language_model
from hrm_jax.interop.reference_config import from_reference_config, to_reference_config
from hrm_jax.models.transformer import TransformerConfig

_PACKAGES = {"torch": "torch", "legacy": "torch", "keras": "h5py"}
_CHECKED = ("torch", "numpy", "packed")  # formats with checksums
LLAMA = TransformerConfig(
    vocab_size=11, max_length=8, hidden_size=8, num_layers=1, num_heads=2, ffn_size=8,
    positions="rotary", norm="rms", feed_forward="swiglu", bias=False, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"H_init": (8,)} | {f"layers.{i}.weight": (8, 6) for i in range(4)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _write(format, tensors, folder):
    """A file of the format; "legacy" is PyTorch's before 1.6, "packed" a compressed .npz."""
    if format == "legacy":
        import torch

        held = {name: torch.tensor(x) for name, x in tensors.items()}
        torch.save(held, folder / "m.pt", _use_new_zipfile_serialization=False)
        return folder / "m.pt"
    if format == "packed":
        np.savez_compressed(folder / "m.npz", **tensors)
        return folder / "m.npz"
    path = folder / f"m{SUFFIXES[format][0]}"
    write_state_dict(path, tensors, format)
    return path


def _attempt(read, path):
    """What a reader gives, and the error of a kind that it may raise."""
    try:
        return read(path), None
    except (ValueError, OSError) as error:
        return None, str(error)


def _mutated(rng, content):
    """A few bits, bytes or runs of bytes changed, taken out or put in; often near the ends."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(content))
        place = rng.choice([place, min(place, rng.randrange(200)), max(0, len(content) - 99)])
        match rng.randrange(6):
            case 0:
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                content[place] = rng.choice(b"\x00\x28\x52\x7f\x80\xff")
            case 2:
                run = content[place : place + rng.randrange(1, 64)]
                content[place : place + len(run)] = rng.randbytes(len(run))
            case 3:
                run = content[place : place + 8]
                content[place : place + len(run)] = rng.choice([b"\xff", b"\x00"]) * len(run)
            case 4 if place:
                del content[place : place + rng.randrange(1, 400)]
            case _:
                content[place:place] = content[: rng.randrange(64)]
    return bytes(content)


@pytest.mark.parametrize("format", [*FORMATS, "legacy", "packed"])
def test_damaged_weights_are_refused_by_name_or_right(format, tensors, tmp_path):
    if format in _PACKAGES:
        pytest.importorskip(_PACKAGES[format])
    path = _write(format, tensors, tmp_path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        path.write_bytes(_mutated(rng, whole))
        found, error = _attempt(read_state_dict, path)
        if error is not None:
            assert str(path) in error
            refused += 1
            continue
        assert all(isinstance(x, np.ndarray) for x in found.values())
        if format in _CHECKED:
            assert found.keys() == tensors.keys()
            assert all(found[name].tobytes() == x.tobytes() for name, x in tensors.items())
    assert refused > 20


@pytest.mark.parametrize("format", ["torch", "numpy"])
def test_overwritten_numbers_are_found(format, tensors, tmp_path):
    """Wherever in a tensor: the checksum is that of all its bytes."""
    if format in _PACKAGES:
        pytest.importorskip(_PACKAGES[format])
    path = _write(format, tensors, tmp_path)
    whole = path.read_bytes()
    for tensor in tensors.values():
        held = tensor.tobytes()
        for place in (0, len(held) // 2, len(held) - 1):
            damaged = bytearray(whole)
            damaged[whole.index(held) + place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"m\.\w+: not .* damaged: .*(checksum|CRC)"):
                read_state_dict(path)


_ODD = (
    *(None, True, "", "x", "${.x}", [], [[[]]], {}, {"a": {"b": 1}}, -1, 0, 2**31, 2**63, 10**400),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
)


def _with_odd_values(rng, values):
    """A few fields with other values, without some, or with others' names."""
    values = json.loads(json.dumps(values))
    for _ in range(rng.choice([1, 1, 2])):
        group = rng.choice([values, *(x for x in values.values() if isinstance(x, dict) and x)])
        match rng.randrange(8):
            case 0:
                del group[rng.choice(list(group))]
            case 1:
                group[rng.choice(["x", "", "H_layer", "model"])] = rng.choice(_ODD)
            case _:
                group[rng.choice(list(group))] = rng.choice(_ODD)
        if not values:
            break
    return values


def _configurations(tmp_path, parity_folder):
    """Files of configurations, their content, and what reads them."""
    hrm = from_reference_config(parity_folder / "config.json")
    settings = tmp_path / "config.json"
    yield tmp_path / "all_config.yaml", to_reference_config(hrm), from_reference_config
    yield tmp_path / "hrm.json", to_reference_config(hrm), from_reference_config
    for config in (LLAMA, TransformerConfig(positions="learned", feed_forward="gelu")):
        yield settings, to_settings(config), lambda path: from_settings(read_json(path), str(path))


def test_odd_configurations_are_refused_by_name_or_read(tmp_path, parity_folder):
    rng, refused = random.Random(0), 0
    for path, content, read in _configurations(tmp_path, parity_folder):
        dump = yaml.safe_dump if path.suffix == ".yaml" else json.dumps
        for case in range(60):
            text = dump(_with_odd_values(rng, content) if case % 3 else content)
            path.write_bytes(text.encode() if case % 3 else _mutated(rng, text.encode()))
            _, error = _attempt(read, path)
            assert error is None or str(path) in error
            refused += error is not None
    assert refused > 120


_DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "a: " + "[" * 600),
        ("c.yaml", "a: 2020-99-99"),
        ("c.yaml", "a: &a [*a]\nhidden_size: *a"),
        ("c.yaml", "hidden_size: 0x" + "f" * 5_000),
        ("c.json", _DEEP),
        ("c.json", '{"hidden_size": ' + "9" * 5_000 + "}"),
        ("c.json", '{"arch": 3}'),
        ("c.json", "\x00"),
    ],
    ids=range(8),
)
def test_hostile_configurations(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path / name}\b"):
        from_reference_config(tmp_path / name)


def test_configurations_beside_weights(tensors, tmp_path):
    path, beside = tmp_path / "m.npz", tmp_path / "m.config.json"
    write_state_dict(path, tensors, "numpy")
    for odd in ({"name": []}, {"ffn_size": 2**63}, {"norm_eps": math.nan}, {"num_heads": "2"}, {}):
        model = to_mapping(LLAMA) | odd
        beside.write_text(json.dumps({"model": model}) if odd else _DEEP)
        with pytest.raises(ValueError, match=r"m\.config\.json"):
            import_language_model(path)


class TestBombs:
    """A small file that would fill the memory."""

    def test_npz(self, tmp_path, monkeypatch):
        path = tmp_path / "m.npz"
        np.savez_compressed(path, a=np.zeros(1 << 18, np.float32))
        assert read_state_dict(path)["a"].shape == (1 << 18,)
        with pytest.raises(DataError, match=r"m\.npz: unpacks to more than 1000000 bytes"):
            read_state_dict(path, limit=1_000_000)
        monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "2000000")
        assert read_state_dict(path)["a"].shape == (1 << 18,)

    def test_torch(self, tmp_path):
        torch = pytest.importorskip("torch")
        path = tmp_path / "m.pt"
        torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
        with pytest.raises(DataError, match=r"m\.pt: unpacks to more than 268435456 bytes"):
            read_state_dict(path)

    def test_keras(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        path = tmp_path / "m.weights.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a", (1 << 40,), "f4").attrs["name"] = "a"
        with pytest.raises(DataError, match=r"h5: unpacks to more than 268435456 bytes"):
            read_state_dict(path)
        (tmp_path / "secret").write_bytes(bytes(8))
        with h5py.File(path, "w") as file:
            other = [(str(tmp_path / "secret"), 0, 8)]
            file.create_dataset("a", (2,), "f4", external=other).attrs["name"] = "a"
        with pytest.raises(DataError, match=r"h5: a takes its numbers from other files"):
            read_state_dict(path)

    def test_pickle(self, tmp_path):
        import pickle

        path = tmp_path / "m.pkl"
        path.write_bytes(pickle.dumps({"a": np.zeros(1 << 12, np.uint8)}, protocol=4))
        with pytest.raises(DataError, match=r"m\.pkl: unpacks to more than 4000 bytes"):
            read_state_dict(path, limit=4000)
        assert read_state_dict(path, limit=1 << 14)["a"].shape == (1 << 12,)

    def test_a_header_that_claims_more_than_there_is(self, tmp_path):
        path = tmp_path / "m.npz"
        with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
            shape = {"descr": "<f4", "fortran_order": False, "shape": (9 << 40,)}
            np.lib.format.write_array_header_1_0(file, shape)
        with pytest.raises(DataError, match=r"m\.npz"):
            read_state_dict(path)


@pytest.mark.parametrize("name", ["checkpoint", "m.bin", "m.safetensors", "m.npz", "m.pkl", "m.pt"])
def test_pointers_of_git_lfs_are_named(name, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2260000000\n"
    for path, read in ((tmp_path / name, read_state_dict), (tmp_path / "c.json", read_json)):
        path.write_text(pointer)
        with pytest.raises(DataError, match=rf"{path.name}: a Git LFS pointer .*`git lfs pull`"):
            read(path)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and NumPy, about what is damaged
        yield
