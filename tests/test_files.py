"""Reading what others wrote."""

import gzip

import pytest

from hrm_jax.data.errors import DataError, reading
from hrm_jax.files import Allowance, opened, read_json

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2260000000\n"


def test_packed_files_read_as_they_are(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"a\r\nb\nc"))
    with opened(path) as file:
        assert file.readlines() == [b"a\r\n", b"b\n", b"c"]
    with opened(path, "rt", encoding="utf-8") as file:
        assert file.readlines() == ["a\n", "b\n", "c"]


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with opened(path, limit=1 << 20) as file:
        assert len(file.read()) == 1 << 20
    with (
        opened(path, limit=(1 << 20) - 1) as file,
        pytest.raises(DataError, match=r"a\.gz: unpacks to more than 1048575 bytes"),
    ):
        file.readline()
    monkeypatch.setenv("HRM_JAX_UNPACK_LIMIT", "1000")
    with opened(path) as file, pytest.raises(DataError, match="more than 1000 bytes"):
        file.read(1)
    monkeypatch.setenv("HRM_JAX_UNPACK_LIMIT", "64G")
    with pytest.raises(ValueError, match=r"HRM_JAX_UNPACK_LIMIT: expected a number .*'64G'"):
        opened(path)


def test_the_allowance_grows_with_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("HRM_JAX_UNPACK_LIMIT", raising=False)
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
