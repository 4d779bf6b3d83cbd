"""Exporting weights."""

import importlib.util
import pathlib

import pytest

import hrm_jax
from hrm_jax.interop.export import export
from hrm_jax.interop.files import FORMATS, SUFFIXES, read_state_dict
from hrm_jax.interop.hrm_names import from_reference
from hrm_jax.interop.reference_config import from_reference_config
from hrm_jax.tasks.puzzles.model import PuzzleModel

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

    def test_bad_arguments_write_nothing(self, small_config, make_variables, tmp_path):
        variables = make_variables(small_config)
        with pytest.raises(ValueError, match=r"expected m\.npz"):
            export(small_config, variables, tmp_path / "m.pt", "numpy")
        assert not list(tmp_path.iterdir())


class TestLaunch:
    @pytest.fixture
    def main(self, small_config, make_variables, monkeypatch):
        def load(workdir, *, checkpoint):
            if workdir != "run":
                raise FileNotFoundError(f"{workdir}: no such work directory")
            assert checkpoint in ("last", "best", 300)
            return PuzzleModel(small_config, make_variables(small_config), loss="softmax")

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
        assert "loss_type: softmax_cross_entropy" in (tmp_path / "m.config.yaml").read_text()

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
