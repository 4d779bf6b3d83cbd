"""From the messages of a chat to the one prompt that a model reads."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from hrm_jax.data.text import template_process
from hrm_jax.data.text.template_process import compiled, rendered
from hrm_jax.data.text.tokenizers import ByteTokenizer, Tokenizer, around, prompt_tokens, utf8

DEFAULT_TEMPLATE = """\
{%- for message in messages if message.role in ("system", "developer") -%}
{{ message.content }}{{ "\\n" }}
{%- endfor -%}
{%- if messages[-1].role != "user" -%}
{{ raise_exception("expected the last message to be of the user") }}
{%- endif -%}
{{ messages[-1].content }}"""
"""What the system says, a line each, then the user's last message alone.

Earlier turns are left out: a model that was trained on a prompt and its answer knows no others.
"""

SECONDS = 5.0
_STAND_INS = 0xD800  # the first lone surrogate: no text has them


class ChatTemplate:
    """A template in Hugging Face's form, rendered in Jinja's sandbox, for a tokenizer.

    Templates may use `messages` (each with `role` and `content`), `add_generation_prompt` (true),
    `raise_exception`, `strftime_now` and `tojson`; `bos_token`, `eos_token` and `pad_token` are
    empty where no text spells these tokens, as with bytes. They are rendered in a process of their
    own (`template_process`), which is ended when that takes longer than `SECONDS`, or 1 GiB of
    memory.
    """

    def __init__(
        self, source: str = "", tokenizer: Tokenizer | None = None, seconds: float = SECONDS
    ) -> None:
        """Compiles a template; "" takes `DEFAULT_TEMPLATE`. Raises `ValueError`, which names the
        line, where it is not valid Jinja."""
        self._source, self._seconds = source, seconds
        self._tokenizer = tokenizer or ByteTokenizer()
        self._special: Mapping[str, int] = getattr(self._tokenizer, "special", {})
        self._names = {token: name for name, token in self._special.items()}
        self._default = None if source else compiled(DEFAULT_TEMPLATE)
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()
        if source:
            with self._asking:
                self._start()

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of messages, at least one, each with `role` and `content`; `ValueError` where
        the template refuses the messages, fails on them or takes too long."""
        variables = {
            "messages": list(messages),
            "add_generation_prompt": True,
            **{
                f"{role}_token": self._names.get(getattr(self._tokenizer, f"{role}_id"), "")
                for role in ("bos", "eos", "pad")
            },
        }
        if self._default is not None:
            return rendered(self._default, variables)
        with self._asking:
            if self._process is None:
                self._start()
            return self._ask(variables)

    def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of the prompt, as the model is fed them; errors as those of `render`.

        What the template writes and spells special tokens becomes these; the same letters in a
        `content` stay text. Whether BOS comes in front is the template's to say, except for the
        default one, or where no text spells BOS: then the tokenizer says it, as of every text.
        """
        if self._default is not None or not self._special:
            return prompt_tokens(self._tokenizer, self.render(messages))
        text = self.render([{**m, "content": self._typed(m["content"])} for m in messages])
        known = {ord(stand_in): c for c, stand_in in self._stand_ins().items()}
        pieces = re.split("([\ud800-\udfff])", text)  # the odd ones are stand-ins
        parts = [(x.translate(known), place % 2 == 0) for place, x in enumerate(pieces)]
        ids: list[int] = self._tokenizer.encode_parts(parts)  # type: ignore[attr-defined]
        if self._tokenizer.bos_id in self._names:
            return ids
        prefix, suffix = around(self._tokenizer)
        return [*prefix, *ids, *suffix]

    def _stand_ins(self) -> dict[str, str]:
        """A character that no text has for each that special tokens are spelled with."""
        letters = sorted(set("".join(self._special)))
        return {c: chr(_STAND_INS + place) for place, c in enumerate(letters)}

    def _typed(self, text: str) -> str:
        """A user's text, with a stand-in for the first letter of each special token that it spells,
        or would together with what may come before or behind it."""
        text = utf8(text).decode()
        names = "|".join(map(re.escape, self._special))
        places = {match.start() for match in re.finditer(f"(?=(?:{names}))", text)}
        for name in self._special:
            for cut in range(1, len(name)):
                if text.endswith(name[:cut]):
                    places.add(len(text) - cut)
                if text.startswith(name[cut:]):
                    places.add(0)
        stand_ins = self._stand_ins()
        return "".join(stand_ins[c] if i in places else c for i, c in enumerate(text))

    # The process

    def _start(self) -> None:
        """Starts it with the template; `ValueError` where that cannot be compiled."""
        command = [sys.executable, "-P", str(pathlib.Path(template_process.__file__))]
        self._process = process = subprocess.Popen(
            command, stdin=-1, stdout=-1, text=True, encoding="ascii", start_new_session=True
        )
        weakref.finalize(self, _end, process)
        self._ask([self._source, self._seconds])

    def _ask(self, question: Any) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process = None  # the next question starts another
            code = _end(process)
            late = (
                f"took longer than {self._seconds:g} s"
                if code == -signal.SIGALRM
                else f"ended ({code})"
            )
            raise ValueError(f"messages: the chat template: its process {late}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        text: str = answer["text"]
        return text


def _end(process: subprocess.Popen[str]) -> int:
    """Ends a process, unless it has ended itself, and returns its exit code."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    with process:
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
