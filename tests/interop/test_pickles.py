"""Pickles: what NumPy writes is read, and nothing else is."""

import contextlib
import copyreg
import os
import pickle
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from hrm_jax.interop.files import read_state_dict, write_state_dict


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.pkl"


@pytest.fixture
def refused(path, tmp_path):
    """Asserts that a file's content is refused with a message, and runs nothing."""

    def check(content, message):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"m\.pkl: {message}"):
            read_state_dict(path)
        assert os.listdir(tmp_path) == ["m.pkl"]

    return check


class _Calls:
    """Pickled as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_what_numpy_pickles_is_read(protocol, core, path):
    tensors = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "view": np.arange(20, dtype=np.int16)[::3],
        "big": np.array([1, 2, 3], ">i4"),
        "bool": np.array([True, False]),
        "half": np.array([1.5, np.nan], np.float16),
        "complex": np.array([1 + 2j]),
        "number": np.array(7, np.int64),
        "scalar": np.float32(2.5),
        "long" * 100: np.full((3, 100), 2**63 + 1, np.uint64),
    }
    tensors["tied"] = tensors["matrix"]
    content = pickle.dumps(tensors, protocol=protocol)
    if core == b"numpy.core":  # as NumPy 1 names it
        for name in (b"multiarray", b"numeric"):
            now, then = (b"%s.%s" % (c, name) for c in (b"numpy._core", core))
            content = content.replace(bytes([len(now)]) + now, bytes([len(then)]) + then)
            content = content.replace(b"c" + now, b"c" + then)
        assert b"numpy._core" not in content
        content = content.replace(b"\x95" + content[3:11], b"") if protocol >= 4 else content
    path.write_bytes(content)
    found = read_state_dict(path)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert isinstance(found[name], np.ndarray)
        assert found[name].dtype == array.dtype
        assert found[name].flags.writeable
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_pickle_reads_it_without_this_package(path):
    values = np.array([[1.0, -0.0], [np.inf, 3.5]], np.float32)
    write_state_dict(path, {"a": values.T, "n": np.array(3)}, "pickle")
    code = (
        f"import pickle, sys; d = pickle.load(open({str(path)!r}, 'rb')); "
        "assert type(d) is dict and not {'jax', 'flax', 'hrm_jax'} & set(sys.modules); "
        "print(d['a'].tolist(), d['n'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[[1.0, inf], [-0.0, 3.5]] ()\n"


@pytest.mark.parametrize(
    "array", [np.array([1], ml_dtypes.bfloat16), np.array([None]), np.array(["a"])]
)
def test_what_numpy_alone_cannot_read_is_not_written(array, path):
    with pytest.raises(ValueError, match=rf"^a: {array.dtype} cannot be pickled"):
        write_state_dict(path, {"a": array}, "pickle")
    assert not path.exists()


@pytest.mark.parametrize("protocol", [3, 4])  # names as text lines, as strings
@pytest.mark.parametrize(
    ("call", "name"),
    [
        ((os.system, ("touch sprung",)), r"posix\.system"),
        ((eval, ("1 + 1",)), r"builtins\.eval"),
        ((getattr, ("", "join")), r"builtins\.getattr"),
        ((subprocess.Popen, (["touch", "sprung"],)), r"subprocess\.Popen"),
        ((np.load, ("x.npy",)), r"numpy\.load"),
        ((copyreg.add_extension, ("os", "system", 7)), r"copyreg\.add_extension"),
        ((np.memmap, ("sprung", "u1", "w+", 0, (4,))), r"numpy\.memmap"),
    ],
)
def test_other_names_are_refused(call, name, protocol, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"a": np.zeros(2), "b": _Calls(*call)}, protocol=protocol)
    refused(content, f"refused, because it holds {name}")


@pytest.mark.parametrize(
    "array",
    [
        np.array([_Calls(os.mkdir, ("sprung",))], object),
        np.array([[np.zeros(2), {}], [np.zeros(3), []]], object),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        np.array(["text"]),
        np.array([b"text"]),
        np.zeros(2, "datetime64[s]"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(array, refused):
    refused(pickle.dumps({"a": array}), "refused, because it holds (the dtype|posix.mkdir)")


def test_names_from_copyregs_cache_are_refused(refused, tmp_path):
    """An extension that was loaded once never reaches an unpickler's `find_class` again."""
    copyreg.add_extension("posix", "mkdir", 0x7B)
    try:
        content = pickle.dumps({"a": _Calls(os.mkdir, (str(tmp_path / "sprung"),))}, protocol=2)
        assert b"mkdir" not in content
        pickle.loads(pickle.dumps(os.mkdir, protocol=2))
        assert copyreg._extension_cache
        refused(content, "refused, because it holds EXT1 123")
    finally:
        copyreg.remove_extension("posix", "mkdir", 0x7B)
        copyreg.clear_extension_cache()


def _text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def _name(module, name):
    return _text(module) + _text(name) + b"\x93"


_F4 = _name("numpy", "dtype") + _text("f4") + b"\x89\x88\x87R"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"(S'touch sprung'\nios\nsystem\n.", "refused, because it holds STRING"),
        (b"(ios\nsystem\n.", "refused, because it holds INST os system"),
        (b"\x80\x02(cos\nsystem\nU\x04trueo.", r"refused, because it holds os\.system"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "refused, because it holds NEWOBJ"),
        (b"\x80\x04" + _text("x") + b"Q.", "refused, because it holds BINPERSID"),
        (b"\x80\x05\x97.", "refused, because it holds NEXT_BUFFER"),
        # allowed names, put to another use
        (b"\x80\x04" + _name("numpy", "ndarray") + b"K\x05\x85\x85R.", r".*a call of numpy\.nd"),
        (b"\x80\x04" + _name("numpy", "dtype") + _text("O8") + b"\x89\x88\x87R.", ".*dtype 'O8'"),
        (b"\x80\x04" + _text("join") + b")R.", r".*a call of str as NumPy"),
        (b"\x80\x04" + _name("numpy", "dtype") + b"}" + _text("x") + b"K\x01sb.", ".*a state of"),
        (b"\x80\x04" + _F4 + b"(K\x03" + _text("<") + b"NNNM\x00\x10J\xff\xff\xff\xffK\x00tb.",
         ".*a state of _dtype"),  # an item size of its own
        (b"\x80\x04}K\x01K\x02s.", ".*a dict with keys of type int"),
        (b"\x80\x04}" + _text("a") + _name("numpy", "dtype") + b"s.", ".*no array: a"),
        (b"\x80\x04}" + _text("a") + b"K\x01s.", r"expected arrays by name only; no array: a"),
        (b"\x80\x04]K\x01a.", "expected arrays by name, got list"),
        # nonsense
        (b"\x80\x04.", "not a pickle, or damaged"),
        (b"\x80\x04t.", "not a pickle, or damaged"),
        (b"\x80\x04h\x05.", "not a pickle, or damaged"),
        (b"\x80\x04K\x01K\x02a.", "not a pickle, or damaged"),
        (b"\x80\x04K\x01r\xff\xff\xff\xff.", "expected arrays by name, got int"),  # no huge memo
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "not a pickle, or damaged"),
        (b"PK\x03\x04", "not a pickle, or damaged"),
    ],
)  # fmt: skip
def test_crafted_files_are_refused(content, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(content, message)


@pytest.mark.parametrize("shape", [(4,), (2,), (-3,), (2**62, 4), (1.5,), ((3,),), "abc"])
def test_shapes_must_fit_the_bytes(shape, refused):
    content = pickle.dumps({"a": np.zeros(3, np.float32)}, protocol=4)
    assert content.count(b"K\x03\x85") == 1
    other = pickle.dumps(shape, protocol=4)
    other = other[11 if other[2] == 0x95 else 2 : -1].replace(b"\x94", b"")
    content = b"\x80\x04" + content[11:].replace(b"K\x03\x85", other)
    refused(content, "(not a pickle, or damaged|refused)")


def test_truncated_files_are_refused(refused):
    content = pickle.dumps({"a": np.arange(3.0), "b": np.zeros((2, 2), np.int8)}, protocol=4)
    for length in range(0, len(content), 3):
        refused(content[:length], "not a pickle, or damaged")


def test_flipped_bytes_never_run_anything(path):
    """Every single-byte change either reads as arrays or is a ValueError."""
    content = pickle.dumps({"a": np.arange(3, dtype=np.float32)}, protocol=4)
    for place in range(len(content)):
        for value in (0x00, 0x28, 0x52, 0xFF):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            found = {}
            with contextlib.suppress(ValueError):
                found = read_state_dict(path)
            assert all(isinstance(x, np.ndarray) for x in found.values())
