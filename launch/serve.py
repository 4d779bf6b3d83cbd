"""Serves a language model: OpenAI's API and a chat page. launch/serve.py --workdir=… --port=8000"""

import argparse
import dataclasses
import logging
import os
import pathlib
import sys

import hrm_jax
from hrm_jax.engine.language import LanguageModel
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of a language model's run")
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--host", default="127.0.0.1", help="others than this need an API key")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--api_key",
        help="what clients must present; others see it in the list of processes, so better give "
        "it as the environment's HRM_JAX_API_KEY",
    )
    parser.add_argument("--slots", type=int, default=8, help="answers written at once")
    parser.add_argument("--max_queue", type=int, default=64, help="most answers that wait")
    parser.add_argument(
        "--max_tokens", type=int, default=0, help="most tokens of an answer; 0: the model's length"
    )
    parser.add_argument("--max_body", type=int, default=1 << 20, help="most bytes of a request")
    parser.add_argument(
        "--drain_seconds", type=float, default=30.0, help="for running answers after SIGTERM"
    )
    parser.add_argument("--chat_template", help="file with a Jinja template for chats")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    key = args.api_key
    if key is None:
        key = os.environ.get("HRM_JAX_API_KEY") or None
    names = ("slots", "max_queue", "max_tokens", "max_body", "drain_seconds")
    try:
        from hrm_jax.server.process import Server, bind

        with bind(args.host, args.port, key) as listener:
            model = hrm_jax.load(args.workdir, args.checkpoint)
            if not isinstance(model, LanguageModel):
                raise ValueError(f"{args.workdir}: a run of puzzles; this serves language models")
            decoder = model.decoder
            if args.chat_template:
                template = pathlib.Path(args.chat_template).read_text(encoding="utf-8")
                decoder = dataclasses.replace(decoder, chat_template=template)
            options = {name: getattr(args, name) for name in names}
            server = Server(decoder, listener, api_key=key, **options)
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
