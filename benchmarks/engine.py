"""Tokens per second of the inference engine beside Hugging Face `transformers`, greedy, float32.

    python benchmarks/engine.py
    python benchmarks/engine.py --requests=8 --rounds=7
    python benchmarks/engine.py --shared=256 --alone
    python benchmarks/engine.py --pretrained --speculate=4

The same random weights (a Llama over bytes, 26 million parameters) answer the same requests, of
mixed prompt and answer lengths, all there at once: in the engine, and as one batch with a KV cache
in `transformers.generate` (padded on the left) and, where it is installed, in CTranslate2; both go
on until the longest answer is done. Only tokens that were asked for count. Measured in turn,
medians quoted; their first tokens are those of the whole batch. The answers must be the same.
Another engine serves four adapters (rank 8 on all linear layers), which the requests take in turn.
Two rounds come before those that count, so that all programs are compiled; the last column says how
many programs these requests were the first to need. With --shared all prompts of a round begin
with so many tokens, others in each round, and one more engine reads those once (`prefix_cache`).
With --devices one more is divided over so many devices, a CPU's cores among them.
With --speculate one more guesses so many tokens ahead, which makes no sense for random weights and
bytes: --pretrained takes the packaged model, and prompts from the prose that it has not read.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import Table, add_save_flag

from hrm_jax.compilation import divide_cpu, run_in_main_thread
from hrm_jax.data.text.embedded import spanish_documents
from hrm_jax.data.text.tokenizers import BOS, PAD, ByteTokenizer
from hrm_jax.engine.decoder import Decoder
from hrm_jax.engine.engine import Engine, Sampling
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.models.transformer import Transformer, TransformerConfig
from hrm_jax.trained.pretrained import pretrained

ADAPTERS = 4
COLUMNS = (
    *("requests", "engine", "tokens/s", "ratio", "tokens per CPU s", "ratio"),
    *("first token, median", "95 %", "compilations"),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt, and how many tokens are wanted."""

    prompt: list[int]
    wanted: int


@dataclasses.dataclass(frozen=True)
class Run:
    """What answering took: seconds, seconds of all threads, of each first token; the answers."""

    seconds: float
    cpu: float
    first: list[float]
    answers: list[list[int]]


def mixed(
    count: int, prompt: int, answer: int, shared: int = 0, text: bytes = b"", seed: int = 0
) -> list[Request]:
    """Requests whose lengths are spread evenly up to the longest: the same for all seeds. Prompts
    are from places of a text, where there is one."""
    lengths, rng = np.random.default_rng(0), np.random.default_rng(seed)
    shares = (np.arange(count) + 0.5) / count
    prompts, wanted = (
        np.ceil(lengths.permutation(shares) * x).astype(int) for x in (prompt, answer)
    )

    def drawn(length: int) -> list[int]:
        if not text:
            return rng.integers(0, 256, length).tolist()
        start = rng.integers(len(text) - length)
        return list(text[start : start + length])

    first = drawn(shared)
    return [Request([*first, *drawn(n)], int(m)) for n, m in zip(prompts, wanted, strict=True)]


def ours(engine: Engine, requests: list[Request]) -> Run:
    """Answers by the engine; adapters, if it has any, are taken in turn."""
    names = itertools.cycle(engine.decoder.adapters or [None])
    start, cpu = time.monotonic(), time.process_time()
    handles = [
        engine.submit([BOS, *r.prompt], Sampling(r.wanted, temperature=0, ignore_eos=True), name)
        for r, name in zip(requests, names, strict=False)
    ]
    answers = [list(handle.result().tokens) for handle in handles]
    took, cpu = time.monotonic() - start, time.process_time() - cpu
    first = [(handle.times.first or 0) - start for handle in handles]
    return Run(took, cpu, first, answers)


Answers = Callable[[list[Request]], Run]


def of_transformers(config: TransformerConfig, params: Mapping[str, Any], threads: int) -> Answers:
    """Answers by `transformers` with the same weights."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(folder, config, params, "bytes")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def run(requests: list[Request]) -> Run:
        start, cpu = time.monotonic(), time.process_time()
        longest = max(len(r.prompt) for r in requests) + 1
        rows = [[PAD] * (longest - 1 - len(r.prompt)) + [BOS, *r.prompt] for r in requests]
        first: list[float] = []

        def seen(ids: Any, scores: Any, **_: Any) -> Any:
            if not first:
                first.append(time.monotonic() - start)
            return torch.zeros(len(ids), dtype=torch.bool)

        tokens = torch.tensor(rows)
        with torch.inference_mode():
            made = model.generate(
                tokens,
                attention_mask=(tokens != PAD).long(),
                max_new_tokens=max(r.wanted for r in requests),
                do_sample=False,
                use_cache=True,
                stopping_criteria=transformers.StoppingCriteriaList([seen]),
            )
        took, cpu = time.monotonic() - start, time.process_time() - cpu
        new = made[:, longest:].tolist()
        answers = [row[: r.wanted] for row, r in zip(new, requests, strict=True)]
        return Run(took, cpu, first * len(requests), answers)

    return run


def of_ctranslate2(config: TransformerConfig, params: Mapping[str, Any], threads: int) -> Answers:
    """Answers by CTranslate2 with the same weights, in float32."""
    import ctranslate2

    with tempfile.TemporaryDirectory() as folder:
        model, converted = (str(pathlib.Path(folder) / name) for name in ("model", "converted"))
        save_pretrained(model, config, params, "bytes")
        converter = ctranslate2.converters.TransformersConverter(model)
        converter.convert(converted)
        generator = ctranslate2.Generator(converted, intra_threads=threads, compute_type="float32")
        words = list(json.loads((pathlib.Path(converted) / "vocabulary.json").read_text()))

    def run(requests: list[Request]) -> Run:
        start, cpu = time.monotonic(), time.process_time()
        first: list[float] = []

        def seen(_: Any) -> bool:
            if not first:
                first.append(time.monotonic() - start)
            return False

        made = generator.generate_batch(
            [[words[token] for token in [BOS, *r.prompt]] for r in requests],
            max_length=max(r.wanted for r in requests),
            sampling_topk=1,
            end_token=[],
            include_prompt_in_result=False,
            callback=seen,
        )
        took, cpu = time.monotonic() - start, time.process_time() - cpu
        ids = [x.sequences_ids[0][: r.wanted] for x, r in zip(made, requests, strict=True)]
        return Run(took, cpu, first * len(requests), ids)

    return run


def drawn_adapters(kind: LoraConfig, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Adapters of which nothing is 0."""
    key = jax.random.key(seed)
    fresh = jax.jit(functools.partial(lora.init, kind))(params, key)
    return jax.tree.map(lambda x: x + 0.01 * jax.random.normal(key, x.shape), fresh)


def median(runs: list[Run], of: Callable[[Run], float]) -> float:
    """Median of something over runs."""
    return statistics.median(map(of, runs))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, action="append", help="default: 1, 8 and 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the longest prompt")
    parser.add_argument("--answer", type=int, default=128, help="tokens of the longest answer")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--shared", type=int, default=0, help="tokens that all prompts begin with")
    threads = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=threads, help="PyTorch's; default: cores")
    parser.add_argument("--speculate", type=int, default=0, help="tokens that are guessed ahead")
    parser.add_argument("--devices", type=int, default=1, help="one more engine, divided over them")
    parser.add_argument("--pretrained", action="store_true", help="the packaged model")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--alone", action="store_true", help="without others' engines")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    for name in ("hidden", "layers") if args.pretrained else ():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} has no effect: --pretrained is given")
    run_in_main_thread()
    if args.devices != 1:
        divide_cpu(args.devices)

    config = TransformerConfig(
        hidden_size=args.hidden,
        num_layers=args.layers,
        ffn_size=args.hidden * 11 // 4,
        max_length=args.shared + args.prompt + args.answer + 64,
        positions="rotary",
        norm="rms",
        feed_forward="swiglu",
        bias=False,
        dropout=0.0,
    )
    start = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(Transformer(config).init)(jax.random.key(0), start)["params"]
    text = b""
    if args.pretrained:
        model = pretrained("spanish-gpt2")
        config, params = model.config, model.variables["params"]
        text = b"".join(spanish_documents()[1])
    decoder = Decoder(config, params, ByteTokenizer())
    plain = {"slots": args.slots, "prefix_cache": 0}  # the same prompts come in each round
    engine = Engine(decoder, **plain)
    kind = LoraConfig(target_modules="all-linear")
    adapters = {str(i): (kind, drawn_adapters(kind, params, i)) for i in range(ADAPTERS)}
    adapting = Engine(dataclasses.replace(decoder, adapters=adapters), **plain)
    adapted = f"hrm_jax, {ADAPTERS} adapters"
    engines = {"hrm_jax": engine, adapted: adapting}
    if args.speculate:
        guessing = Engine(decoder, **plain, speculate=args.speculate)
        engines[f"hrm_jax, {args.speculate} guessed"] = guessing
    if args.devices != 1:
        divided = dataclasses.replace(decoder, devices=args.devices)
        engines[f"hrm_jax, {args.devices} devices"] = Engine(divided, **plain)
    if args.shared:
        engines["hrm_jax, prefixes kept"] = Engine(decoder, slots=args.slots)
    others: dict[str, Answers] = {}
    if not args.alone:
        others["transformers"] = of_transformers(config, params, args.threads)
        if importlib.util.find_spec("ctranslate2"):
            others["CTranslate2"] = of_ctranslate2(config, params, args.threads)
    count = sum(x.size for x in jax.tree.leaves(params))
    note = (
        f"{jax.devices()[0].device_kind}, {config.dtype}, {count:,} parameters"
        f"{' of spanish-gpt2' if args.pretrained else ''}, prompts up to "
        f"{args.prompt}, answers up to {args.answer} tokens, medians of {args.rounds}"
        + (f", all prompts behind the same {args.shared} tokens." if args.shared else ".")
    )
    table = Table("engine", "Inference engine", COLUMNS, [note])

    for number in args.requests or (1, 8, 32):
        sizes = (number, args.prompt, args.answer, args.shared, text)
        wanted = sum(r.wanted for r in mixed(*sizes))
        before = {name: sum(x.stats.compilations.values()) for name, x in engines.items()}
        runs: dict[str, list[Run]] = {name: [] for name in (*engines, *others)}
        for round_ in range(args.rounds + 2):
            requests = mixed(*sizes, seed=round_ if args.shared else 0)
            for name, one in engines.items():
                runs[name].append(ours(one, requests))
            for name, answers in others.items():
                runs[name].append(answers(requests))
        for name in runs.keys() - {adapted}:
            both = (runs[x][-1].answers for x in ("hrm_jax", name))
            for mine, yours in zip(*both, strict=True):
                assert mine == yours, f"{name}: not the same answer:\n{mine}\n{yours}"
        measured = {name: some[2:] for name, some in runs.items()}
        base = measured["transformers" if others else "hrm_jax"]
        for name, some in measured.items():
            rate, cpu = median(some, lambda r: r.seconds), median(some, lambda r: r.cpu)
            first = np.array([f for r in some for f in r.first])
            table.add(
                number,
                name,
                f"{wanted / rate:.0f}",
                f"{median(base, lambda r: r.seconds) / rate:.2f}",
                f"{wanted / cpu:.0f}",
                f"{median(base, lambda r: r.cpu) / cpu:.2f}",
                f"{np.median(first) * 1e3:.0f} ms",
                f"{np.percentile(first, 95) * 1e3:.0f} ms",
                sum(engines[name].stats.compilations.values()) - before[name]
                if name in engines
                else "",
            )
    table.save(args.save)


if __name__ == "__main__":
    main()
