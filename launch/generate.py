"""Continues a text: python launch/generate.py --workdir=runs/spanish_lm --prompt="En un lugar"."""

import argparse
import sys

from hrm_jax.data.text.tokenizers import prompt_tokens
from hrm_jax.paths import expanded
from hrm_jax.trained.load import load_language, merge_adapter
from hrm_jax.training.checkpoints import CheckpointError
from hrm_jax.training.workdir import checkpoint


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--workdir", type=expanded, required=True, help="folder of a language model's run"
    )
    parser.add_argument("--adapter", type=expanded, help="folder of a low-rank adapter (peft)")
    parser.add_argument("--prompt", required=True, help="text to continue; - reads it from stdin")
    parser.add_argument(
        "--special_tokens", action="store_true", help="read those that the prompt spells as such"
    )
    parser.add_argument(
        "--checkpoint", type=checkpoint, default="last", help="last, best or a step"
    )
    parser.add_argument("--max_new_tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.9, help="0 takes the likeliest")
    parser.add_argument("--top_k", type=int, default=50, help="so many likeliest tokens; 0: all")
    parser.add_argument("--top_p", type=float, default=0.95, help="share of probability; 1: all")
    parser.add_argument("--min_p", type=float, default=0.0, help="least share of the likeliest's")
    parser.add_argument("--repetition_penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    options = {name: getattr(args, name) for name in (*names, "seed")}
    try:
        model = load_language(args.workdir, args.checkpoint)
        if args.adapter:
            model = merge_adapter(model, args.adapter)
        prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
        tokens = prompt_tokens(model.tokenizer, prompt, special=args.special_tokens)
        for event in model.stream(tokens, **options):
            print(event.text, end="", flush=True)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
