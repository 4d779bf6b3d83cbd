"""What held-out text has in common with the training text: it would flatter the figures."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from hrm_jax.data.text.documents import Documents
from hrm_jax.data.text.pairs import Pairs

log = logging.getLogger("hrm_jax")

_LONG = 40  # bytes; shorter lines are alike by chance
_SHARE = 0.01  # of the long lines that may be alike by chance


def report_shared_documents(train: Documents, test: Documents) -> None:
    """Logs how many held-out documents, and lines of 40 bytes or more, are in the training text
    too, where these are any documents or a hundredth of the lines."""
    known = {hash(train[i].strip()) for i in range(len(train))}
    both = [i for i in range(len(test)) if hash(test[i].strip()) in known]
    lines = list(_long_lines(test))
    wanted = set(lines)
    found = {line for line in _long_lines(train) if line in wanted}
    shared = sum(line in found for line in lines)
    if both or shared > _SHARE * len(lines):
        first = f", the first is {test.names[both[0]]}" if both else ""
        log.warning(
            "%d of %d held-out documents and %d of their %d lines of %d bytes or more are in the "
            "training text too%s: held-out figures do not tell of new text",
            len(both), len(test), shared, len(lines), _LONG, first,
        )  # fmt: skip


def _long_lines(documents: Documents) -> Iterator[int]:
    """Hashes of lines, which take less room."""
    for i in range(len(documents)):
        for line in documents[i].splitlines():
            line = line.strip()
            if len(line) >= _LONG:
                yield hash(line)


def report_shared_pairs(train: Pairs, test: Pairs) -> None:
    """Logs how many held-out pairs are among the training pairs too."""

    def texts(pairs: Pairs) -> list[tuple[str, str]]:
        both = zip(pairs.prompts, pairs.targets, strict=True)
        return [(prompt.strip(), target.strip()) for prompt, target in both]

    known = dict(zip(texts(train), train.where, strict=True))
    both = [
        (where, known[x]) for x, where in zip(texts(test), test.where, strict=True) if x in known
    ]
    if both:
        log.warning(
            "%d of %d held-out pairs are among the training pairs too, the first is %s, as %s: "
            "held-out figures do not tell of new pairs",
            len(both), len(test), *both[0],
        )  # fmt: skip
