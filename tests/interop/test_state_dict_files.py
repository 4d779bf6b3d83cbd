"""State dicts in files."""

import io
import os
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from hrm_jax.interop import files
from hrm_jax.interop.files import FORMATS, SUFFIXES, read_state_dict, write_state_dict

_PACKAGES = {"torch": "torch", "keras": "h5py"}


@pytest.fixture(params=FORMATS)
def format(request):
    if request.param in _PACKAGES:
        pytest.importorskip(_PACKAGES[request.param])
    return request.param


@pytest.fixture
def tensors():
    rng = np.random.default_rng(1)
    shapes = {"inner.H_init": (3,), "inner.q_head.weight": (2, 3), "inner.q_head.bias": (2,)}
    values = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    values["inner.H_init"][:] = [np.nan, -0.0, 1e-42]  # what a detour over text would lose
    values["inner.L_init"] = np.full(3, np.inf, np.float32)
    return values


def _assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].shape == b[name].shape
        assert a[name].tobytes() == b[name].tobytes(), name


def test_round_trip_is_exact(format, tensors, tmp_path):
    for suffix in SUFFIXES[format]:
        path = tmp_path / f"model{suffix}"
        write_state_dict(path, tensors, format)
        _assert_same(read_state_dict(path), tensors)
        assert os.listdir(tmp_path) == [path.name]
        path.unlink()


def test_the_same_tensors_make_the_same_file(format, tensors, tmp_path):
    paths = [tmp_path / f"{name}{SUFFIXES[format][0]}" for name in "ab"]
    for path in paths:
        write_state_dict(path, tensors, format)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_transposed_views_are_written_right(format, tmp_path):
    tensors = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    path = tmp_path / f"m{SUFFIXES[format][0]}"
    write_state_dict(path, tensors, format)
    np.testing.assert_array_equal(read_state_dict(path)["a.weight"], tensors["a.weight"])


def test_single_numbers_stay_single(format, tmp_path):
    path = tmp_path / f"m{SUFFIXES[format][0]}"
    tensors = {"a.count": np.array(7, np.int32)}
    write_state_dict(path, tensors, format)
    _assert_same(read_state_dict(path), tensors)


def test_the_reference_file_reads_like_its_npz(parity_folder, parity_state_dict, tmp_path):
    pytest.importorskip("torch")
    _assert_same(read_state_dict(parity_folder / "state_dict.pt"), parity_state_dict)
    bare = tmp_path / "step_1234"  # as the reference names its checkpoints
    bare.write_bytes((parity_folder / "state_dict.pt").read_bytes())
    _assert_same(read_state_dict(bare), parity_state_dict)


def test_a_failed_write_leaves_the_old_file(format, tensors, tmp_path, monkeypatch):
    path = tmp_path / f"m{SUFFIXES[format][0]}"
    write_state_dict(path, tensors, format)
    before = path.read_bytes()

    def fail(temporary, tensors):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setitem(files._WRITERS, format, fail)
    with pytest.raises(OSError, match="disk full"):
        write_state_dict(path, tensors, format)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


class _Trap:
    """Makes a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestHostileFiles:
    @pytest.fixture
    def trap(self, tmp_path):
        yield _Trap(tmp_path / "sprung")
        assert not (tmp_path / "sprung").exists()

    def test_the_trap_works(self, tmp_path):
        pickle.loads(pickle.dumps(_Trap(tmp_path / "sprung")))
        assert (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("suffix", [".pt", ".bin", ""])
    def test_raw_pickle_is_refused(self, trap, suffix, tmp_path):
        pytest.importorskip("torch")
        path = tmp_path / f"m{suffix}"
        path.write_bytes(pickle.dumps({"a": trap}, protocol=2))
        with pytest.raises(ValueError, match="no file of plain tensors"):
            read_state_dict(path)

    def test_torch_file_with_an_object_is_refused(self, trap, tmp_path):
        torch = pytest.importorskip("torch")
        path = tmp_path / "m.pt"
        torch.save({"model.inner.H_init": torch.zeros(2), "x": trap}, path)
        with pytest.raises(ValueError, match="no file of plain tensors"):
            read_state_dict(path)

    def test_npz_with_an_object_is_refused(self, trap, tmp_path):
        path = tmp_path / "m.npz"
        np.savez(path, a=np.array([trap], dtype=object))
        with pytest.raises(ValueError, match=r"m\.npz: not an \.npz file of plain arrays"):
            read_state_dict(path)

    @pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".weights.h5", ".pkl"])
    def test_pickle_under_another_name_is_refused(self, trap, suffix, tmp_path):
        if suffix == ".weights.h5":
            pytest.importorskip("h5py")
        path = tmp_path / f"m{suffix}"
        path.write_bytes(pickle.dumps(trap))
        with pytest.raises(ValueError, match=rf"{path.name}: (not a|refused)"):
            read_state_dict(path)

    def test_no_tensors_are_refused(self, tmp_path):
        torch = pytest.importorskip("torch")
        path = tmp_path / "m.pt"
        torch.save({"model": {"a": torch.zeros(2)}, "step": 3, "a": torch.zeros(1)}, path)
        with pytest.raises(ValueError, match="no tensor: model, step"):
            read_state_dict(path)
        torch.save([torch.zeros(2)], path)
        with pytest.raises(ValueError, match="got list"):
            read_state_dict(path)


def test_damaged_files_are_refused(format, tensors, tmp_path):
    path = tmp_path / f"m{SUFFIXES[format][0]}"
    write_state_dict(path, tensors, format)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            read_state_dict(path)


def test_missing_files_and_folders(format, tmp_path):
    path = tmp_path / f"m{SUFFIXES[format][0]}"
    with pytest.raises(FileNotFoundError, match=path.name):
        read_state_dict(path)
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=path.name):
        read_state_dict(path)


def test_names_must_fit_the_format(tensors, tmp_path):
    with pytest.raises(ValueError, match=r"expected m\.safetensors"):
        write_state_dict(tmp_path / "m.pt", tensors, "safetensors")
    with pytest.raises(ValueError, match=r"expected one of safetensors, torch, numpy, keras"):
        write_state_dict(tmp_path / "m.pt", tensors, "pytorch")
    with pytest.raises(ValueError, match="unknown kind of file"):
        read_state_dict(tmp_path / "m.msgpack")
    assert not os.listdir(tmp_path)


def test_bfloat16_is_widened(tmp_path):
    torch = pytest.importorskip("torch")
    values = np.array([1.0, 1.0078125, -3.0], ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"a": values}, tmp_path / "m.safetensors")
    torch.save({"a": torch.tensor(values.astype(np.float32)).bfloat16()}, tmp_path / "m.pt")
    for name in ("m.safetensors", "m.pt"):
        found = read_state_dict(tmp_path / name)["a"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("m.pt", "torch", "torch"), ("m.weights.h5", "h5py", "keras")]
)
def test_a_missing_package_is_named(name, package, extra, tensors, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).touch()
    hint = rf"needs {package}: pip install 'hrm_jax\[{extra}\]'"
    with pytest.raises(ImportError, match=hint):
        read_state_dict(tmp_path / name)
    with pytest.raises(ImportError, match=hint):
        write_state_dict(tmp_path / name, tensors, extra)


def test_safetensors_and_npz_need_no_torch(tensors, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name, format in (("m.safetensors", "safetensors"), ("m.npz", "numpy")):
        write_state_dict(tmp_path / name, tensors, format)
        _assert_same(read_state_dict(tmp_path / name), tensors)


class TestOtherProgramsReadIt:
    def test_torch(self, tensors, tmp_path):
        torch = pytest.importorskip("torch")
        write_state_dict(tmp_path / "m.pt", tensors, "torch")
        found = torch.load(tmp_path / "m.pt", weights_only=True)
        assert list(found) == list(tensors)
        for name, tensor in found.items():
            assert isinstance(tensor, torch.Tensor)
            assert tensor.numpy().tobytes() == tensors[name].tobytes()

    def test_numpy(self, tensors, tmp_path):
        write_state_dict(tmp_path / "m.npz", tensors, "numpy")
        with zipfile.ZipFile(tmp_path / "m.npz") as archive:
            content = archive.read("inner.q_head.weight.npy")
        np.testing.assert_array_equal(np.load(io.BytesIO(content)), tensors["inner.q_head.weight"])

    def test_keras_layout(self, tensors, tmp_path):
        h5py = pytest.importorskip("h5py")
        tensors = dict(reversed(tensors.items()))  # bias before weight
        write_state_dict(tmp_path / "m.weights.h5", tensors, "keras")
        with h5py.File(tmp_path / "m.weights.h5") as file:
            head = file["inner/q_head/vars"]
            assert list(head) == ["0", "1"]
            np.testing.assert_array_equal(head["0"], tensors["inner.q_head.weight"].T)
            np.testing.assert_array_equal(head["1"], tensors["inner.q_head.bias"])
            assert {d.attrs["name"] for d in file["inner/vars"].values()} == {
                "inner.H_init",
                "inner.L_init",
            }

    def test_foreign_keras_files_are_refused(self, tmp_path):
        h5py = pytest.importorskip("h5py")
        with h5py.File(tmp_path / "m.weights.h5", "w") as file:
            file["dense/vars/0"] = np.zeros(3)
        with pytest.raises(ValueError, match=r"dense/vars/0 has no attribute 'name'"):
            read_state_dict(tmp_path / "m.weights.h5")
