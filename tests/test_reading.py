"""Reading what others wrote."""

import pytest

from hrm_jax.data.errors import DataError, reading
from hrm_jax.files import opened, read_json, write_json
from hrm_jax.reading import Allowance

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2260000000\n"


def test_an_allowance_is_what_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_bytes(b"x")
    allowance = Allowance(path, 5)
    allowance.take(3)
    allowance.take(2)
    with pytest.raises(DataError, match=r"a\.npz: unpacks to more than 5 bytes"):
        allowance.take(1)
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "1000")
    assert Allowance(path).limit == 1000
    monkeypatch.setenv("HRM_JAX_MAX_UNPACKED", "64G")
    with pytest.raises(ValueError, match=r"HRM_JAX_MAX_UNPACKED: expected a number .*'64G'"):
        Allowance(path)


def test_the_allowance_grows_with_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("HRM_JAX_MAX_UNPACKED", raising=False)
    path = tmp_path / "a"
    path.write_bytes(b"x")
    assert Allowance(path).limit == 256 << 20
    with open(path, "r+b") as file:
        file.truncate(1 << 30)
    assert Allowance(path).limit == 100 << 30


def test_pointers_of_git_lfs_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(POINTER)
    for read in (read_json, opened, lambda path: reading(path).__enter__()):
        with pytest.raises(DataError, match=r"a\.json: a Git LFS pointer .*git lfs pull"):
            read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "a.json: .*RecursionError.*expected a JSON object"),
        (b"\xff", "a.json: not UTF-8"),
        (b'{"a":\n', "a.json:2: not valid JSON"),
        (b"[1]", "a.json: expected a JSON object, got list"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a.json: .*integer string conversion"),
    ],
)
def test_no_json_object(content, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_json(path)


def test_written_json_is_short_and_reads_back(tmp_path):
    value = {"a": [[1, 2], [3.5e-7, None, True]], "b": ["x[\n 1 ]", 2], "c": [], "d": [{"e": [1]}]}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    lines = (tmp_path / "x.json").read_text().splitlines()
    assert {"    [1, 2],", "    [3.5e-07, null, true]"} <= set(lines)
