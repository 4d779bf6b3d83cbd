"""What clients of the server send: OpenAI's requests and errors.

A field that would change the answer and is not supported is refused; so is one that is not known.
What cannot change it (`_IGNORED`), and values that ask for nothing (`_NEUTRAL`), are accepted.

References:
    https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from hrm_jax.engine.sampling import MAX_ALTERNATIVES, Sampling

MAX_STOPS, MAX_STOP_LENGTH = 16, 256

_IGNORED = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prediction"),
    *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
    *("include_obfuscation", "name", "annotations"),
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "tool_calls": ([],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "reasoning_effort": ("none",),
    # vLLM's
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "continuous_usage_stats": (False,),
}
_COMPLETION_TOKENS = 16  # OpenAI's default
_ERROR_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


def shown(value: Any) -> str:
    """What a client sent, for a message: no more than its beginning."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": str(self),
                "type": _ERROR_TYPES.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: item for name, item in value.items() if item is not None}
        return value

    def check_extra(self, where: str = "") -> None:
        """Refuses fields that are not known and would, or might, change the answer."""
        for name, value in (self.model_extra or {}).items():
            neutral = _NEUTRAL.get(name, ())
            if name in _IGNORED or value in neutral:
                continue
            name = shown(name)[1:-1]
            expected = f"; expected none, or {neutral[0]!r}" if neutral else ""
            known = "not supported" if neutral else "not a field that this server knows"
            raise ApiError(
                400,
                f"{where}{name}: {known}{expected}",
                param=f"{where}{name}",
                code="unsupported_parameter" if neutral else "unknown_parameter",
            )


def _prompts(value: Any) -> Any:
    """A list of prompts, each a text or tokens."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(x) is int for x in value):
            return [value]
        lists = all(isinstance(x, list) and x and all(type(y) is int for y in x) for x in value)
        if lists or all(isinstance(x, str) for x in value):
            return value
    raise ValueError(
        "expected a text, a list of texts, a list of tokens, or a list of lists of tokens"
    )


def _content(value: Any) -> Any:
    """A message's text; parts that are texts are put together."""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ValueError('expected parts of the type "text" only, each with a text')
        texts.append(text)
    return "".join(texts)


class StreamOptions(_Model):
    """What a stream has besides the answer."""

    include_usage: bool = False


class Generation(_Model):
    """Fields of both kinds of requests; the names are OpenAI's and, from `top_k` on, vLLM's."""

    model: str = ""
    n: int = Field(1, ge=1, le=128)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int = Field(default_factory=lambda: secrets.randbits(63), ge=-(2**63), lt=2**63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]],
        BeforeValidator(lambda x: [x] if isinstance(x, str) else x),
        Field(max_length=MAX_STOPS),
    ] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    top_k: int = Field(0, ge=-1)  # 0 and -1 take all
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    return_tokens_as_token_ids: bool = False  # in log-probabilities, "token_id:17" for the text

    def alternatives(self) -> int | None:
        """How many alternatives to each token are told; None tells no log-probabilities."""
        raise NotImplementedError

    def wanted_tokens(self, limit: int) -> tuple[int, str]:
        """How many tokens to make at most, where the server allows `limit`, and the field that says
        so."""
        raise NotImplementedError

    def check(self) -> None:
        """Checks what single fields cannot tell; raises `ApiError` 400, which names the field."""
        self.check_extra()
        if self.stream_options is not None:
            self.stream_options.check_extra("stream_options.")
            if not self.stream:
                raise ApiError(400, "stream_options: only with stream=true", param="stream_options")

    def samplings(self, limit: int) -> list[Sampling]:
        """How each of the n choices is drawn; the first one with the request's own seed. Raises
        `ApiError` 400 where more tokens are asked for than `limit`."""
        wanted, field = self.wanted_tokens(limit)
        if wanted > limit:
            raise ApiError(
                400, f"{field}: expected at most {limit}, got {shown(wanted)}", param=field
            )
        same = {"temperature", "top_p", "min_p", "repetition_penalty", "ignore_eos"}
        return [
            Sampling(
                max_new_tokens=wanted,
                **self.model_dump(include=same),
                top_k=max(self.top_k, 0),
                seed=(self.seed + number * 0x9E3779B97F4A7C15) % 2**64,
                stop=tuple(self.stop),
                stop_tokens=tuple(self.stop_token_ids),
                logprobs=self.alternatives() or 0,
            )
            for number in range(self.n)
        ]


class CompletionRequest(Generation):
    """A text, or several, to continue."""

    prompt: Annotated[list[Any], BeforeValidator(_prompts)]
    logprobs: int | None = Field(None, ge=0, le=MAX_ALTERNATIVES)

    def alternatives(self) -> int | None:
        return self.logprobs

    def wanted_tokens(self, limit: int) -> tuple[int, str]:
        default = min(_COMPLETION_TOKENS, limit)
        return default if self.max_tokens is None else self.max_tokens, "max_tokens"


class Message(_Model):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]


class ChatRequest(Generation):
    """A chat to answer."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_ALTERNATIVES)] = 0

    def alternatives(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    def wanted_tokens(self, limit: int) -> tuple[int, str]:
        names = ("max_completion_tokens", "max_tokens")
        given = [(getattr(self, x), x) for x in names if getattr(self, x) is not None]
        return min(given, default=(limit, ""))

    def check(self) -> None:
        super().check()
        for number, message in enumerate(self.messages):
            message.check_extra(f"messages[{number}].")
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs: only with logprobs=true", param="top_logprobs")


_AnyRequest = TypeVar("_AnyRequest", bound=Generation)


def parse(kind: type[_AnyRequest], body: bytes) -> _AnyRequest:
    """Reads a request from JSON, or raises `ApiError` 400, which names the field."""
    try:
        asked = kind.model_validate_json(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"the body is not valid JSON: {first['msg']}") from error
        steps = (f"[{x}]" if isinstance(x, int) else f".{x}" for x in first["loc"])
        where = "".join(steps).removeprefix(".")  # messages[0].content
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("missing", "value_error"):
            message += f", got {shown(first['input'])}"
        raise ApiError(400, f"{where or 'body'}: {message}", param=where or None) from error
    asked.check()
    return asked
