"""Bits per byte of language models on a text, beside packers and an n-gram.

    python benchmarks/language.py --data=held_out.txt --count=train.txt.gz \
        planned=runs/spanish_lm plain=runs/spanish_plain

Every byte is predicted once, with at least the config's length - eval_stride bytes before it where
the text has them. The n-gram is counted on the first --count_bytes of --count.
"""

import argparse
import sys

from analysis.text_baselines import ByteNGrams, packers
from report import Table, add_save_flag

from hrm_jax.data.text.reader import read_documents
from hrm_jax.trained.evaluate import evaluate

_PLANS = {"shuffled_plan": "with another text's plan", "no_plan": "without a plan"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="held-out text")
    parser.add_argument("--count", help="text to count the n-gram on")
    parser.add_argument("--count_bytes", type=int, default=6_000_000)
    parser.add_argument("--order", type=int, default=5, help="bytes of context of the n-gram")
    parser.add_argument("--limit", type=int, help="only so many windows of the text")
    parser.add_argument("runs", nargs="*", metavar="name=workdir")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    text = read_documents(args.data).tokens.tobytes()
    rows = list(packers(text).items())
    if args.count:
        counted = read_documents(args.count).tokens.tobytes()[: args.count_bytes]
        name = f"{args.order} bytes of context, Witten-Bell, counted on {len(counted):,} bytes"
        rows.append((name, ByteNGrams(counted, args.order).bits_per_byte(text)))
    for run in args.runs:
        name, _, workdir = run.rpartition("=")
        figures = evaluate(workdir, args.data, limit=args.limit)
        rows.append((name or workdir, figures["eval/bits_per_byte"]))
        rows += [
            (f"  {words}", figures[f"eval/bits_per_byte_{key}"])
            for key, words in _PLANS.items()
            if f"eval/bits_per_byte_{key}" in figures
        ]
        if "eval/code_perplexity" in figures:
            rows.append(("  codes in use (perplexity)", figures["eval/code_perplexity"]))
    note = f"{len(text):,} bytes of {args.data}."
    table = Table("language", "Bits per byte of language models", ("", "bits per byte"), [note])
    for name, value in rows:
        table.add(name, f"{value:.3f}")
    table.save(args.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
