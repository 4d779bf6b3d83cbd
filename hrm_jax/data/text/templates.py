"""From a prompt to the tokens that a model reads, in training and afterwards, and to its answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from hrm_jax.data.errors import DataError
from hrm_jax.data.text.chat_template import ChatTemplate
from hrm_jax.data.text.instructions import Message, Prompt
from hrm_jax.data.text.tokenizer_files import settings_of, tokenizer_file
from hrm_jax.data.text.tokenizers import Tokenizer, prompt_tokens

Kind = Literal["spanish", "chat"]

_HEADERS = {"user": "### Instrucción:\n", "assistant": "### Respuesta:\n"}
_INPUT = "### Entrada:\n"

SPANISH = """\
{%- for message in messages -%}
{{ {"user": "### Instrucción:\\n", "assistant": "### Respuesta:\\n"}.get(message.role, "") }}
{{- message.content }}{{ "\\n\\n" }}
{%- endfor -%}
{{ "### Respuesta:\\n" }}"""
"""What "spanish" writes, as a chat template."""


def chat_template_of(tokenizer: str) -> str:
    """The chat template beside a tokenizer, as `load_tokenizer` takes it; "" where there is none.
    `chat_template.jinja` counts before `tokenizer_config.json`, in which the one named "default"
    is taken where there are several."""
    if tokenizer == "bytes":
        return ""
    file = tokenizer_file(tokenizer)
    beside = file.with_name("chat_template.jinja")
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    settings = file.with_name("tokenizer_config.json")
    given = settings_of(settings).get("chat_template", "")
    if isinstance(given, list):
        named = {x.get("name"): x.get("template") for x in given if isinstance(x, dict)}
        given = named.get("default", "")
    if not isinstance(given, str):
        raise DataError(f"{settings}: chat_template: expected a text, or texts with their names")
    return given


class Template:
    """The one way from prompts to tokens; `tokenizer` must have an end token.

    "spanish" writes headers in front of instruction, input and answer, as Alpaca's template does in
    English, a blank line between; what the system says comes first, without a header. "chat" is the
    model's own `chat_template`, in which an input follows its instruction after a blank line.
    A prompt that is a text is taken as it is.
    """

    def __init__(self, kind: Kind, tokenizer: Tokenizer, chat_template: str = "") -> None:
        """Raises `DataError` where the tokenizer has no end token, or no chat template is given
        for "chat"; `ValueError` where it cannot be compiled."""
        if tokenizer.eos_id is None:
            raise DataError("data.template: the tokenizer has no end token for answers to end with")
        if kind == "chat" and not chat_template:
            raise DataError(
                "data.template: 'chat', but the model has no chat template; expected 'spanish'"
            )
        self._tokenizer, self._end = tokenizer, tokenizer.eos_id
        self._chat = ChatTemplate(chat_template, tokenizer) if kind == "chat" else None

    def prompt(self, prompt: Prompt) -> list[int]:
        """What the model is shown before it answers."""
        if isinstance(prompt, str):
            return prompt_tokens(self._tokenizer, prompt)
        if self._chat is None:
            return prompt_tokens(self._tokenizer, spanish(prompt))
        messages = [{"role": x.role, "content": _joined(x)} for x in prompt]
        return self._chat.encode(messages)

    def answer(self, text: str) -> list[int]:
        """What it is to answer: the text's tokens, and the end token."""
        return [*self._tokenizer.encode(text), self._end]

    def shortened(self, prompt: Prompt, length: int) -> list[int]:
        """The prompt in so many tokens at most: what it is about loses its end, while what the
        template writes behind it stays. Of a prompt that is a text the beginning is lost. None at
        all where not even the template fits."""
        tokens = self.prompt(prompt)
        if len(tokens) <= length:
            return tokens
        if isinstance(prompt, str):
            start = self.prompt("")
            room = length - len(start)
            return [*start, *tokens[-room:]] if room > 0 else []
        tail = _common(tokens[::-1], self.prompt(_emptied(prompt))[::-1])
        room = length - tail
        return [*tokens[:room], *tokens[len(tokens) - tail :]] if room > 0 else []


def spanish(turns: Sequence[Message]) -> str:
    """The text of a conversation up to where the answer begins."""
    parts = []
    for turn in turns:
        parts.append(_HEADERS.get(turn.role, "") + turn.content)
        if turn.input:
            parts.append(_INPUT + turn.input)
    return "\n\n".join([*parts, _HEADERS["assistant"]])


def instruction(text: str, about: str = "") -> Prompt:
    """The prompt of a single instruction, and what it is about."""
    return (Message("user", text, about),)


def _joined(turn: Message) -> str:
    return f"{turn.content}\n\n{turn.input}" if turn.input else turn.content


def _emptied(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """With another text in the place of the last one, of which the end alone could be the same."""
    last = turns[-1]
    fresh = last._replace(input="\0") if last.input else last._replace(content="\0")
    return (*turns[:-1], fresh)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
