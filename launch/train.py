"""Trains what a config describes: python launch/train.py --config=configs/sudoku.py[:preset]."""

import logging
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from hrm_jax import experiment
from hrm_jax.compilation import run_in_main_thread
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.loop import NonFiniteError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, preset after a colon.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
flags.mark_flag_as_required("config")
_STOPPED = {
    "early_stopping": "no improvement (config.early_stopping)",
    "max_iterations": "all evaluations are done (config.control.max_iterations)",
    "token_limit": "all tokens or their iterations are used up (config.control.max_tokens)",
}


def main(argv: list[str]) -> int | None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; fields are set by --config.x=y")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("hrm_jax").setLevel(logging.INFO)
    try:
        config = _CONFIG.value
        name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        workdir = _WORKDIR.value or f"runs/{name}"
        result = experiment.train(config.to_dict(), workdir)
    except KeyboardInterrupt:
        print("Interrupted before training began; nothing was saved.", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError, CheckpointError, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if result.reason == "interrupted":
        print(f"Saved step {result.step}. To go on, run the same command again:")
        print(f"  python {' '.join(sys.argv)}")
        return 128 + result.signal
    if result.reason != "finished":
        print(f"Stopped early at step {result.step}: {_STOPPED[result.reason]}.")
    print(experiment.report(result, workdir))
    return None


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one line instead of a traceback for a bad preset, field or value."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        flag, *trace = str(error).strip().splitlines()  # what a config file raises has its trace
        message = (
            f"{flag.split(': ')[0]}: {trace[-1].removeprefix('ValueError: ')}" if trace else flag
        )
    except (AttributeError, KeyError, TypeError) as error:
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]
        message = "unknown config field: " + " ".join(str(*error.args[:1]).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    run_in_main_thread()  # before the flags are parsed, which starts JAX
    app.run(main, flags_parser=parse_flags)
