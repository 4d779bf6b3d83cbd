"""Runs what README and docs tell to run, in a folder of its own, in small sizes.

Each Python block runs in the test's process. Each command of a bash block runs in a process that is
forked from one that has imported the library; a training is made small by fields that are added to
its command. A run that a page only uses (`runs/spanish_lm`) is trained before, in the same way.
Files that a page needs lie in the folder.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import tarfile
import tempfile
import time
import urllib.request

import numpy as np
import yaml
from forked import Script
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = pathlib.Path(__file__).parents[1]
SHORT = (
    "--config.steps=3 --config.eval_every=3 --config.checkpoint_every=3 --config.log_every=1 "
    "--config.microbatch_size=0 --config.batch_size=4"
)
SMALL = (
    "--config.model.hidden_size=32 --config.model.num_heads=2 --config.model.L_layers=1 "
    "--config.model.halt_max_steps=2 --config.eval_slots=4 --config.eval_max_steps=2 "
    "--config.model.forward_dtype=float32"
)
DRAWN = "--config.data.num_train=16 --config.data.num_test=4"
LANGUAGE = (
    "--config.model.hidden_size=16 --config.model.num_heads=2 --config.model.ffn_size=32 "
    "--config.model.planner_layers=1 --config.model.executor_layers=1 "
    "--config.optimizer.warmup_steps=1"
)
TEXT = "--config.data.train=abc.txt --config.data.test=abc.txt --config.data.eval_stride=200"
INSTRUCT = (
    "--config.epochs=0 --config.eval_answers=1 --config.eval_new_tokens=8 --config.model=tiny "
    "--config.data.length=256"
)
UNITS = (
    "--config.model.hidden_size=16 --config.model.halt_max_steps=2 --config.eval_slots=4 "
    "--config.eval_max_steps=2",
)
ADDED = {
    "sudoku:laptop": (*UNITS, "--config.checkpoint_every=1"),
    "sudoku:real": UNITS,
    "sudoku": (SMALL, "--config.model.puzzle_emb_ndim=32", "--config.checkpoint_every=1"),
    "maze:laptop": UNITS,
    "maze": (SMALL, "--config.model.puzzle_emb_ndim=32"),
    "domino": (SMALL, "--config.model.puzzle_emb_ndim=32"),
    "latin": (SMALL, "--config.model.puzzle_emb_ndim=32"),
    "arc": (
        SMALL,
        "--config.model.puzzle_emb_ndim=32 --config.data.num_aug=1 --config.data.test_aug=1",
    ),
    "ppo": ("--config.iterations=1 --config.eval_episodes=4 --config.eval_max_steps=50",),
    "dqn": (
        "--config.iterations=4 --config.eval_episodes=4 --config.eval_max_steps=50",
        "--config.learning_starts=32",
    ),
    "spanish_lm": (LANGUAGE, TEXT),
    "spanish_ft": (LANGUAGE, DRAWN),
    "spanish_numbers": (LANGUAGE, DRAWN, "--config.model.plan_size=16"),
    "relational": (
        "--config.model.hidden_dim=8 --config.model.relation_dim=8 --config.data.num_test=8",
    ),
    "transformer": (TEXT, "--config.model.hidden_size=16 --config.optimizer.warmup_steps=1"),
    "instruct": (INSTRUCT,),
    "branch": (INSTRUCT,),
    "infinito_base": (
        "--config.model=tiny --config.memory.layer=0",
        "--config.data.eval_rows=2 --config.data.eval_segments=2 --config.eval_samples=1",
        "--config.phi.projections=1 --config.meter.projections=1",
    ),
    "infinito_scheduler": (
        "--config.language.model=tiny --config.language.memory.layer=0",
        "--config.rollout_steps=2 --config.minibatches=2 --config.epochs=1 --config.max_steps=2",
        "--config.eval_episodes=2 --config.policies=\"('text','frozen')\"",
        "--config.language.data.length=16 --config.language.data.eval_segments=1",
        "--config.language.phi.projections=1 --config.language.meter.projections=1",
    ),
}
TRAIN = ["1.34.41.21.3432.,1234341221434321", "..34341221434321,1234341221434321"]
CSV = {"train.csv": TRAIN, "pool.csv": TRAIN, "test.csv": ["..43432112343412,2143432112343412"]}
STANDARD = {"play": "help\nquit\n"}
UNSOLVED = {"solve": (0, 1)}  # a model of two steps may answer wrongly


class Pages:
    """The folder in which pages run."""

    def __init__(self) -> None:
        self.folder: pathlib.Path | None = None
        self.serving: list[Script] = []

    def enter(self, namespace: dict) -> None:
        """Begins a page."""
        if self.folder is None:
            self._made = tempfile.TemporaryDirectory(prefix="pages_", ignore_cleanup_errors=True)
            self.folder = pathlib.Path(self._made.name)
            for name in ("configs", "launch", "benchmarks"):
                (self.folder / name).symlink_to(ROOT / name)
            (self.folder / "abc.txt").write_text("uno dos tres cuatro cinco " * 100)
            records = [{"instruction": f"¿{i}?", "output": f"{i}."} for i in range(8)]
            (self.folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
            _tiny_model(self.folder / "tiny")
            for name, lines in CSV.items():
                rows = [f"mine,{line},0" for line in lines]
                (self.folder / name).write_text("source,question,answer,rating\n" + "\n".join(rows))
            for number, name in enumerate(("ARC-AGI-1", "ConceptARC")):
                _archive(self.folder / f"{name}.tar.gz", number)
        self.before = pathlib.Path.cwd()
        os.chdir(self.folder)

    def leave(self, namespace: dict) -> None:
        for script in self.serving:
            script.process.terminate()
            script.wait()
        self.serving.clear()
        os.chdir(self.before)

    def bash(self, example) -> None:
        """Evaluates a bash block."""
        text = example.parsed.replace("\\\n", " ")
        for line in text.splitlines():
            for command in line.split(" && "):
                words = shlex.split(command, comments=True)
                if words:
                    self.command(words)

    def command(self, words: list[str]) -> None:
        match words:
            case ["python3", "-m", "venv", _] | [".", _] | ["zensical", "serve"]:
                return
            case ["pip", "install", "-e", what]:
                setup = (ROOT / "setup.py").read_text()
                for extra in re.findall(r"[\w]+", what.strip(".")):
                    assert f'"{extra}": [' in setup or f'"{extra}": ' in setup, extra
                return
            case ["bash", script]:
                subprocess.run(["bash", "-n", script], check=True)
                return
            case ["python", "-m", "pytest", "-q", *rooms]:
                assert all((ROOT / room).exists() for room in rooms)
                return
            case ["python", "-m", "slipcover", *_]:  # this is running
                assert shlex.join(words) in (ROOT / ".ci" / "run").read_text()
                return
        environment = {}
        while "=" in words[0]:
            name, _, environment[name] = words.pop(0).partition("=")
        assert words[0] == "python", words
        argv = words[1:]
        script = pathlib.Path(argv[0]).stem
        if script == "train":
            argv = small(argv)
        elif script == "train_branch" and "--list-branches" not in argv:
            argv += ["--epochs=1", "--max-seq-length=256", "--model=tiny"]
        else:
            self.trained(shlex.join(argv))
        self.start(script, argv, environment)

    def trained(self, text: str) -> None:
        """Trains the runs that a text names and that are not there."""
        for run in sorted(set(re.findall(r"\bruns/\w+", text))):
            config = f"configs/{pathlib.Path(run).name}.py"
            if not pathlib.Path(run).exists() and pathlib.Path(config).exists():
                preset = ":laptop" if '"laptop"' in pathlib.Path(config).read_text() else ""
                argv = ["launch/train.py", f"--config={config}{preset}", f"--workdir={run}"]
                self.start("train", small(argv), {})

    def start(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        """Runs a script, or leaves a server running until the page ends."""
        script = Script(
            argv, environment={**os.environ, **environment}, text=STANDARD.get(name, "")
        )
        if name == "serve":
            self.serving.append(script)
            port = re.search(r"--port=(\d+)", shlex.join(argv))[1]
            for _ in range(300):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                    return
                assert script.process.is_alive(), script.said()
                time.sleep(0.2)
        done = script.wait()
        told = f"{shlex.join(argv)}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode in UNSOLVED.get(name, (0,)), told
        assert "Traceback" not in told, told
        assert not re.search(r"\b[Ww]arning|WARNING", told), told


def _tiny_model(folder: pathlib.Path) -> None:
    """A GPT-2 over bytes as Hugging Face keeps it, in the place of the one that is packaged."""
    import jax  # once its shapes are checked: this module is imported before

    from hrm_jax.interop.hugging_face import save_pretrained
    from hrm_jax.models import language
    from hrm_jax.models.transformer import TransformerConfig

    config = TransformerConfig(
        hidden_size=16, num_layers=1, num_heads=2, ffn_size=16, max_length=513, positions="learned",
        feed_forward="gelu", tie_head=True,
    )  # fmt: skip
    save_pretrained(folder, config, language.init(config, jax.random.key(0)), "bytes")


def _archive(path: pathlib.Path, number: int) -> None:
    """Tasks in the layout of ARC's repositories: to turn a grid upside down."""
    with tarfile.open(path, "w:gz") as tar:
        for split, side in (("training", 2 + number), ("evaluation", 4 + number)):
            grids = np.random.default_rng(side).integers(1, 10, (3, side, side)).tolist()
            pairs = [{"input": grid, "output": grid[::-1]} for grid in grids]
            text = json.dumps({"train": pairs[:2], "test": pairs[2:]}).encode()
            info = tarfile.TarInfo(f"{path.stem}/data/{split}/{side}.json")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))


def small(argv: list[str]) -> list[str]:
    """A training command with fields that make it small."""
    config, preset = re.search(r"--config=configs/(\w+)\.py:?(\w*)", shlex.join(argv)).groups()
    given = shlex.join(argv)
    fields = ADDED.get(f"{config}:{preset}", ADDED[config])
    added = [*SHORT.split(), *shlex.split(" ".join(fields))]
    files = ("data.path", "data.train_csv", "data.training")
    drawn = config in ("sudoku", "maze", "domino", "latin", "arc")
    if drawn and not any(field in given for field in files):
        added += DRAWN.split()
    if config == "instruct" and "data.train=" not in given:
        added.append("--config.data.train=records.jsonl")
    if "language.model=" in given:
        added.remove("--config.language.model=tiny")
    if "puzzle_emb_ndim=0" in given:
        added = [flag for flag in added if "puzzle_emb_ndim" not in flag]
    return [*argv, *added]


_PAGES = Pages()


class _Python(CodeBlockParser):
    language = "python"

    def evaluate(self, example) -> None:
        _PAGES.trained(example.parsed)
        PythonEvaluator()(example)


PAGES = Sybil(
    parsers=[
        SkipParser(),
        CodeBlockParser("bash", _PAGES.bash),
        CodeBlockParser("yaml", lambda example: list(yaml.safe_load_all(example.parsed)) and None),
        _Python(),
    ],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    path=str(ROOT),
    setup=_PAGES.enter,
    teardown=_PAGES.leave,
)
