"""Trains what a config describes: python launch/train.py --config=configs/sudoku.py[:preset].

On several machines the same command is started on each with --multihost, and with --coordinator,
--num_processes and --process_id too where neither SLURM nor Kubernetes tells them.
"""

import logging
import pathlib
import shlex
import signal
import sys
from typing import NoReturn

import jax
from absl import app, flags
from ml_collections import config_flags

from hrm_jax import experiment
from hrm_jax.compilation import run_in_main_thread
from hrm_jax.fields import ConfigError
from hrm_jax.paths import expanded
from hrm_jax.training import processes
from hrm_jax.training.checkpoints import CheckpointError, hear_one_error
from hrm_jax.training.loop import NonFiniteError
from hrm_jax.training.signals import obey_at_once

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, preset after a colon.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config name>.")
flags.mark_flag_as_required("config")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Whether several processes train together.")
flags.DEFINE_string("coordinator", None, "host:port of process 0, the port free.")
flags.DEFINE_integer("num_processes", None, "How many processes there are.")
flags.DEFINE_integer("process_id", None, "Which of them this one is.")
flags.DEFINE_integer(
    "heartbeat_timeout", 100, "Seconds after which a process that is not heard of counts as dead."
)
_EARLY = flags.FlagValues()  # parsed before the others: a config file may ask JAX for its devices
for _name in ("multihost", "coordinator", "num_processes", "process_id", "heartbeat_timeout"):
    _EARLY[_name] = flags.FLAGS[_name]
_STOPPED = {
    "early_stopping": "no improvement (config.early_stopping)",
    "max_iterations": "all evaluations are done (config.control.max_iterations)",
    "token_limit": "all tokens or their iterations are used up (config.control.max_tokens)",
}


def interrupted(number: int) -> NoReturn:
    """Ends the process for a signal that comes while no state has to be saved."""
    processes.leave(
        128 + number,
        f"\nInterrupted ({signal.Signals(number).name}) while there was nothing to save; what had "
        "been saved stays. To begin, or to go on, run the same command again.",
    )


def main(argv: list[str]) -> int | None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; fields are set by --config.x=y")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("hrm_jax").setLevel(logging.INFO if processes.is_first() else logging.WARNING)
    hear_one_error()
    try:
        config = _CONFIG.value
        name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        workdir = _WORKDIR.value or f"runs/{name}"
        result = experiment.train(config.to_dict(), workdir)
    except KeyboardInterrupt:
        interrupted(signal.SIGINT)
    except (ValueError, ImportError, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return processes.leave(2) if _MULTIHOST.value else 2
    except (OSError, CheckpointError, jax.errors.JaxRuntimeError) as error:
        if not _MULTIHOST.value:
            if isinstance(error, jax.errors.JaxRuntimeError):
                raise
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"error: {error}\nHas another process died? {processes.AGAIN}", file=sys.stderr)
        return processes.leave()
    lines = []
    if result.reason == "interrupted":
        lines.append(f"Saved step {result.step}. To go on, run the same command again:")
        lines.append(f"  {shlex.join(['python', *sys.argv])}")
    else:
        if result.reason != "finished":
            lines.append(f"Stopped early at step {result.step}: {_STOPPED[result.reason]}.")
        lines.append(experiment.report(result, workdir))
    if processes.is_first():
        print(*lines, sep="\n")
    return 128 + result.signal if result.reason == "interrupted" else None


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one line instead of a traceback for a bad preset, field or value."""
    argv = [name + mark + expanded(x) for name, mark, x in (x.partition("=") for x in argv)]
    try:
        _EARLY(argv, known_only=True)
        if _EARLY.multihost:
            processes.start(
                _EARLY.coordinator,
                _EARLY.num_processes,
                _EARLY.process_id,
                heartbeat_seconds=_EARLY.heartbeat_timeout,
            )
        return flags.FLAGS(argv)
    except (ConfigError, RuntimeError) as error:
        message = str(error)
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
    obey_at_once(interrupted)
    run_in_main_thread()  # before the flags are parsed, which starts JAX
    app.run(main, flags_parser=parse_flags)
