"""Renders one chat template in a process of its own, which ends itself when that takes too long.

Reads a line of JSON from its standard input, [template, seconds], and then one for each rendering,
the variables; writes for each a line with {"text": …} or {"error": …}. The server runs it by its
path, so that the process knows Jinja and little else.

Templates come with models. Jinja's sandbox keeps them from the machine, but not from loops without
end, numbers and texts without measure; only the system can end these, inside a process.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 1 << 30  # bytes of the process
LARGEST = 1 << 24  # characters of a prompt


def compiled(source: str) -> jinja2.Template:
    """Compiles a template; `ValueError` names the line where it is not valid Jinja."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"chat_template: line {error.lineno}: {error.message}") from error
    except Exception as error:  # what is computed in advance, or nested too deeply
        raise ValueError(f"chat_template: {_named(error)}") from error


def rendered(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """The text for some variables; `ValueError` where the template refuses them, or fails."""
    try:
        text = template.render(variables)
    except Exception as error:
        raise ValueError(f"messages: the chat template: {_named(error)}") from error
    if len(text) > LARGEST:
        raise ValueError(f"messages: the chat template: expected at most {LARGEST} characters")
    return text


def _named(error: Exception) -> str:
    """What a template's author is to know: their own words, or which error it was."""
    if isinstance(error, jinja2.TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **how: Any) -> str:
    """Jinja's own filter escapes for HTML; arguments in the order of transformers'."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **how)


class _Generation(Extension):
    """`{% generation %}` tells trainers what the assistant says; to others it is nothing."""

    tags = {"generation"}  # noqa: RUF012 (as the base class has it)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _answer(seconds: float, work: Callable[[], str]) -> None:
    """Writes what `work` gives. The system ends the process when the time is over: that needs no
    Python, which may be busy."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        answer = {"text": work()}
    except ValueError as error:
        answer = {"error": str(error)}
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(answer), flush=True)


def main() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    source, seconds = json.loads(sys.stdin.readline())
    templates = []

    def compiling() -> str:
        templates.append(compiled(source))
        return ""

    _answer(seconds, compiling)
    for line in sys.stdin:
        _answer(seconds, lambda: rendered(templates[0], json.loads(line)))  # noqa: B023


if __name__ == "__main__":
    main()
