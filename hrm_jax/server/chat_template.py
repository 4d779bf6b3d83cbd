"""From the messages of a chat to the one prompt that a model reads."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

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


class ChatTemplate:
    """A template in Hugging Face's form, rendered in Jinja's sandbox.

    Templates may use `messages` (each with `role` and `content`), `add_generation_prompt` (true),
    `raise_exception`, `strftime_now` and `tojson`. `bos_token` and `eos_token` are empty, because
    the engine itself puts the first token in front of a prompt.
    """

    def __init__(self, source: str = "") -> None:
        """Compiles a template; "" takes `DEFAULT_TEMPLATE`. Raises `ValueError`, which names the
        line, where it is not valid Jinja."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source or DEFAULT_TEMPLATE)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"chat_template: line {error.lineno}: {error.message}") from error

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of messages, at least one, each with `role` and `content`; `ValueError` where
        the template refuses the messages, or fails on them."""
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
            )
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"messages: the chat template: {error}") from error


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
