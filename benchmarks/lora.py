"""Training of low-rank adapters beside Hugging Face's `transformers` and `peft`, float32.

    python benchmarks/lora.py
    python benchmarks/lora.py --rank=16 --batch=4 --rounds=7

The same random weights (a Llama over bytes, 27 million parameters) get the same adapters on all
linear layers and learn the same batches of the packaged Spanish instructions: answers count, AdamW,
gradients clipped. Each gets the same examples in a step, in its usual way: ours is the step of
`configs/instruct.py`, which puts several into a row (--unpacked: one); theirs is eager, a row each,
padded up to the longest of the batch, as data collators do. Tokens are those that are no padding.

First come --steps steps of each, whose losses are compared, then rounds in turn, medians quoted.
The control is the same training at a learning rate of next to 0, so that B stays 0. "state" is all
that is trained and the optimizer's, over three times the bytes of the adapters. Without peft
(extra `dev`) ours is measured alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from report import Table, add_save_flag

from hrm_jax import tasks
from hrm_jax.compilation import jit, run_in_main_thread
from hrm_jax.data.text.branches import branch_folder, branch_names, packaged_branches
from hrm_jax.data.text.tokenizers import ByteTokenizer
from hrm_jax.engine.language import LanguageModel
from hrm_jax.interop.hugging_face import save_pretrained
from hrm_jax.interop.peft import save_adapter
from hrm_jax.models import language
from hrm_jax.models.transformer import TransformerConfig
from hrm_jax.tasks.language.instruct import InstructTask

COLUMNS = ("", "tokens/s", "ratio", "ms a step", "loss before", "after", "farthest apart", "state")
STILL = 1e-12  # the control's learning rate
Step = Callable[[Any], float]


def size(tree: Any) -> int:
    """Bytes."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def ours(task: InstructTask, base: LanguageModel) -> tuple[Any, int, Step]:
    """The adapters at the start, bytes of the optimizer's state, and what takes a step and returns
    its loss."""

    def bare(state: Any, batch: Any, frozen: Any) -> Any:
        state, metrics = task.step(state.replace(frozen=frozen), batch)
        return state.replace(frozen=None), metrics

    state = jax.jit(task.init)(jax.random.key(0)).replace(frozen=None)
    start, optimizer = jax.tree.map(np.asarray, state.params), size(state.opt_state)
    step = jit(bare, donate_argnums=0)

    def advance(batch: Any) -> float:
        nonlocal state
        state, metrics = step(state, batch, base.variables["params"])
        total, count = metrics["loss"]
        return float(total) / float(count)

    return start, optimizer, advance


def theirs(folder: pathlib.Path, adapter: pathlib.Path, rate: float, threads: int) -> Step:
    """A step of peft on the same weights and adapters."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(threads)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, adapter, is_trainable=True).train()
    trained = [x for x in model.parameters() if x.requires_grad]
    rule = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.999), weight_decay=0.0)

    def advance(batch: Any) -> float:
        rows = [
            [torch.from_numpy(batch[name][row, segments == one]) for name in ("tokens", "counted")]
            for row, segments in enumerate(batch["segments"])
            for one in np.unique(segments[segments > 0])
        ]
        tokens, counted = (
            torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
            for parts in zip(*rows, strict=True)
        )
        lengths = torch.tensor([len(row) for row, _ in rows])
        real = torch.arange(tokens.shape[1]) < lengths[:, None]
        targets = torch.where(counted, tokens, -100).long()[:, 1:]
        logits = model(input_ids=tokens.long(), attention_mask=real.long()).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())
        rule.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        rule.step()
        return float(loss.detach())

    return advance


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--microbatch", type=int, default=0, help="rows at a time, 0: all")
    parser.add_argument("--length", type=int, default=320, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=50, help="steps whose losses are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--of", type=int, default=5, help="steps of a round")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--unpacked", action="store_true", help="an example to a row")
    parser.add_argument("--alone", action="store_true", help="without peft")
    threads = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=threads, help="PyTorch's; default: cores")
    add_save_flag(parser)
    args = parser.parse_args(argv)
    run_in_main_thread()

    sizes = TransformerConfig(
        hidden_size=args.hidden,
        num_layers=args.layers,
        ffn_size=args.hidden * 11 // 4,
        max_length=args.length + 64,
        positions="rotary",
        norm="rms",
        feed_forward="swiglu",
        bias=False,
        dropout=0.0,
    )
    params = jax.jit(lambda key: language.init(sizes, key))(jax.random.key(0))
    base = LanguageModel(sizes, {"params": params}, ByteTokenizer())
    root = packaged_branches()
    config: dict[str, Any] = {
        "task": "instruct",
        "batch_size": args.batch,
        "microbatch_size": args.microbatch,
        "epochs": 0,
        "steps": args.steps + args.rounds * args.of,
        "eval_new_tokens": 32,
        "data": {
            "train": ",".join(str(branch_folder(root, x)) for x in branch_names(root)),
            "length": args.length,
            "packing": not args.unpacked,
        },
        "lora": {
            "r": args.rank,
            "alpha": 2.0 * args.rank,
            "dropout": 0.0,
            "target_modules": "all-linear",
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": args.rate,
            "warmup_steps": 0,
            "b2": 0.999,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
        },
    }
    task = InstructTask(tasks.parse(config), base=base)
    still = {**config, "optimizer": {**config["optimizer"], "learning_rate": STILL}}
    batches = list(itertools.islice(task.batches(), args.steps + args.rounds * args.of))

    adapters, optimizer, step = ours(task, base)
    runs: dict[str, Step] = {"hrm_jax": step}
    if not args.alone:
        with tempfile.TemporaryDirectory() as folder:
            model, adapter = pathlib.Path(folder) / "model", pathlib.Path(folder) / "adapter"
            save_pretrained(model, sizes, params, "bytes")
            save_adapter(adapter, task.config.lora, params, adapters)
            runs["transformers + peft"] = theirs(model, adapter, args.rate, args.threads)
    runs["hrm_jax, B stays 0"] = ours(InstructTask(tasks.parse(still), base=base), base)[2]

    losses = {name: [run(b) for b in batches[: args.steps]] for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds):
        first = args.steps + number * args.of
        for name, run in runs.items():
            start = time.perf_counter()
            for batch in batches[first : first + args.of]:
                run(batch)
            seconds[name].append((time.perf_counter() - start) / args.of)

    real = statistics.mean(int((b["segments"] > 0).sum()) for b in batches[args.steps :])
    medians = {name: statistics.median(some) for name, some in seconds.items()}
    count = sum(x.size for x in jax.tree.leaves(params))
    note = (
        f"{jax.devices()[0].device_kind}, float32, {count:,} parameters, adapters of rank "
        f"{args.rank} on all linear layers ({size(adapters) // 4:,}), {args.batch} rows of up to "
        f"{args.length} tokens ({real:.0f} real ones), medians of {args.rounds} rounds."
    )
    table = Table("lora", "Training of adapters", COLUMNS, [note])
    slowest = medians.get("transformers + peft", medians["hrm_jax"])
    for name, found in losses.items():
        apart = np.abs(np.subtract(found, losses["hrm_jax"])).max()
        mine = name == "hrm_jax"
        table.add(
            name,
            f"{real / medians[name]:.0f}",
            f"{slowest / medians[name]:.2f}",
            f"{medians[name] * 1e3:.0f}",
            f"{np.mean(found[:5]):.4f}",
            f"{np.mean(found[-5:]):.4f}",
            "" if mine or "stays" in name else f"{apart:.1e}",
            f"{(size(adapters) + optimizer) / (3 * size(adapters)):.4f}" if mine else "",
        )
    table.save(args.save)


if __name__ == "__main__":
    main()
