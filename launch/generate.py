"""Continues a text: python launch/generate.py --workdir=runs/spanish_lm --prompt="En un lugar".

With --model it is a model of Hugging Face's transformers; with --chat it answers the prompt. With
--report what was written is told in a file, of INFINITO with Φ and memory of each segment.
"""

import argparse
import math
import sys
import time
from typing import Any

import numpy as np

from hrm_jax.data.text.tokenizers import prompt_tokens
from hrm_jax.engine.language import LanguageModel
from hrm_jax.files import write_json
from hrm_jax.paths import expanded, path_of
from hrm_jax.tasks.infinito.model import InfinitoModel
from hrm_jax.tasks.infinito.network import repetition
from hrm_jax.trained.arguments import add_model, load_model
from hrm_jax.trained.load import merge_adapter
from hrm_jax.training.checkpoints import CheckpointError


def chat_tokens(model: LanguageModel, prompt: str, system: str | None) -> list[int]:
    """A user's message as the chat template has it; `ValueError` where that refuses it."""
    from hrm_jax.data.text.chat_template import ChatTemplate  # Jinja is not always there

    said = [] if system is None else [{"role": "system", "content": system}]
    template = ChatTemplate(model.chat_template, model.tokenizer)
    return template.encode([*said, {"role": "user", "content": prompt}])


def written(model: LanguageModel, tokens: list[int], options: dict[str, Any]) -> dict[str, Any]:
    """Prints how the tokens go on, as it is found, and returns what there is to tell of it; of what
    was found before an interruption, "interrupted"."""
    if isinstance(model, InfinitoModel):
        found, told = model.written(tokens, **options)
        print(found.text, end="", flush=True)
        return {"text": found.text, **told}
    start, events, more = time.perf_counter(), [], {}
    try:
        for event in model.stream(tokens, **options):
            print(event.text, end="", flush=True)
            events.append(event)
    except KeyboardInterrupt:
        model.engine.close()  # a thread amid a computation would crash the end of the process
        if not events:
            raise
        more = {"interrupted": True}
    made = np.array([[x.token for x in events if x.token >= 0]], np.int32)
    mean = sum(x.logprob for x in events) / len(events)
    return {
        "text": "".join(x.text for x in events),
        "seconds": time.perf_counter() - start,
        "tokens": made.size,
        "repetition": repetition(made),
        "perplexity": math.exp(-mean),
        **more,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_model(parser)
    parser.add_argument("--adapter", type=expanded, help="folder of a low-rank adapter (peft)")
    parser.add_argument("--prompt", required=True, help="text to continue; - reads it from stdin")
    parser.add_argument(
        "--special_tokens", action="store_true", help="read those that the prompt spells as such"
    )
    parser.add_argument(
        "--chat", action="store_true", help="put the prompt into the model's chat template"
    )
    parser.add_argument("--system", help="with --chat: what the system says before")
    parser.add_argument("--max_new_tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.9, help="0 takes the likeliest")
    parser.add_argument("--top_k", type=int, default=50, help="so many likeliest tokens; 0: all")
    parser.add_argument("--top_p", type=float, default=0.95, help="share of probability; 1: all")
    parser.add_argument("--min_p", type=float, default=0.0, help="least share of the likeliest's")
    parser.add_argument("--repetition_penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=expanded, help="JSON file to write: text and figures")
    args = parser.parse_args(argv)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    options = {name: getattr(args, name) for name in (*names, "seed")}
    try:
        if args.system is not None and not args.chat:
            raise ValueError("--system: only with --chat")
        if args.special_tokens and args.chat:
            raise ValueError("--special_tokens: not with --chat, whose template writes them")
        model = load_model(args)
        if args.adapter:
            model = merge_adapter(model, args.adapter)
        prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
        tokens = prompt_tokens(model.tokenizer, prompt, special=args.special_tokens)
        if args.chat:
            tokens = chat_tokens(model, prompt, args.system)
        told = written(model, tokens, options)
        if args.report:
            write_json(path_of(args.report), {"prompt": prompt, **told})
    except ImportError as error:
        message = f"{error.name} is missing: pip install 'hrm_jax[serve]'" if error.name else error
        print(f"error: {message}", file=sys.stderr)
        return 2
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted before anything was written", file=sys.stderr)
        return 130
    print()
    return 130 if "interrupted" in told else 0


if __name__ == "__main__":
    sys.exit(main())
