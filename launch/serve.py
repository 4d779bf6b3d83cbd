"""Serves a language model: OpenAI's API and a chat page. launch/serve.py --workdir=… --port=8000

With --model it is one of Hugging Face's transformers, with the chat template in its folder.
"""

import argparse
import dataclasses
import logging
import os
import pathlib
import sys

from hrm_jax.compilation import divide_cpu
from hrm_jax.paths import expanded
from hrm_jax.server.logs import LossyHandler
from hrm_jax.server.options import Options
from hrm_jax.trained.arguments import add_model, load_model
from hrm_jax.trained.load import with_adapters
from hrm_jax.training.checkpoints import CheckpointError

LIMITS = {
    "slots": "answers written at once",
    "max_queue": "most answers that wait",
    "prefix_cache": "prompts that are kept, so that their beginnings are read once; 0: none",
    "speculate": "tokens that are guessed ahead: the same answers, in fewer steps",
    "max_tokens": "most tokens of an answer; 0: the model's length",
    "max_body": "most bytes of a request",
    "drain_seconds": "for running answers after SIGTERM",
    "keep_alive": "seconds that an idle connection is kept; more than a proxy keeps it",
    "max_connections": "most connections at once",
}


def _named_folder(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, got {text!r}")
    return name, expanded(folder)


def _by_name(given: list[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in given]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--adapter: {min(twice)!r} is given twice")
    return dict(given)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_model(parser)
    parser.add_argument(
        "--adapter",
        action="append",
        default=[],
        type=_named_folder,
        metavar="NAME=FOLDER",
        help="a low-rank adapter (peft) that requests name as their model; may be given again",
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        help="over which the model is divided, and where there is no accelerator, the CPU too",
    )
    parser.add_argument("--host", default="127.0.0.1", help="others than this need an API key")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--api_key",
        help="what clients must present; others see it in the list of processes, so better give "
        "it as the environment's HRM_JAX_API_KEY",
    )
    for name, what in LIMITS.items():
        default = getattr(Options, name)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=what)
    parser.add_argument(
        "--allowed_hosts",
        default="",
        help="names, with commas between, by which a proxy on this machine passes requests on; "
        "with an API key any name will do",
    )
    parser.add_argument(
        "--chat_template", type=expanded, help="file with a Jinja template for chats"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(levelname)s: %(message)s",
        handlers=[LossyHandler()],
        force=True,  # imports may have set up one that waits
    )
    key = args.api_key
    if key is None:
        key = os.environ.get("HRM_JAX_API_KEY") or None
    try:
        from hrm_jax.server.process import Server, bind

        with bind(args.host, args.port, key) as listener:
            if args.devices > 1:
                divide_cpu(args.devices)
            decoder = with_adapters(load_model(args), _by_name(args.adapter)).decoder
            decoder = dataclasses.replace(decoder, devices=args.devices)
            if args.chat_template:
                template = pathlib.Path(args.chat_template).read_text(encoding="utf-8")
                decoder = dataclasses.replace(decoder, chat_template=template)
            limits = {name: getattr(args, name) for name in LIMITS}
            hosts = tuple(x.strip() for x in args.allowed_hosts.split(",") if x.strip())
            options = Options(key, **limits, allowed_hosts=hosts)
            server = Server(decoder, listener, options)
            print(f"{decoder.name} at {server.url}", flush=True)
            return 0 if server.run() else 1
    except ImportError as error:
        message = f"{error.name} is missing: pip install 'hrm_jax[serve]'" if error.name else error
        print(f"error: {message}", file=sys.stderr)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
