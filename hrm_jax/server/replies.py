"""Answers in OpenAI's form, whole and in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from hrm_jax.data.text.tokenizers import ByteTokenizer, Tokenizer
from hrm_jax.engine.requests import Event, Handle
from hrm_jax.server.schemas import ChatRequest, Generation

_WORST = -9999.0  # JSON has no infinity


class Reply:
    """The answer to one request, whole or in chunks."""

    def __init__(self, asked: Generation, model: str, tokenizer: Tokenizer) -> None:
        self.chat = isinstance(asked, ChatRequest)
        self.prompts: Sequence[Handle] = ()  # a request of each prompt
        self.completion_tokens = 0
        self._asked = asked
        self._tokenizer = tokenizer
        self._head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": "",
            "created": int(time.time()),
            "model": model,
        }
        self._lengths: dict[int, int] = {}  # characters of each choice that were sent

    def whole(self, events: Sequence[Sequence[Event]]) -> dict[str, Any]:
        """The answer from all events of each choice."""
        choices = [self._choice(i, x, whole=True) for i, x in enumerate(events)]
        return {**self._named(""), "choices": choices, "usage": self._usage()}

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """Chunks that come before the answer: in a chat, who speaks."""
        if not self.chat:
            return []
        delta = {"role": "assistant", "content": ""}
        return [
            self._chunk([{"index": i, "delta": delta, "logprobs": None, "finish_reason": None}])
            for i in range(choices)
        ]

    def chunk(self, index: int, events: Sequence[Event]) -> dict[str, Any] | None:
        """The next events of a choice; None where they say nothing yet."""
        choice = self._choice(index, events, whole=False)
        text = choice["delta"].get("content") if self.chat else choice["text"]
        if not text and choice["finish_reason"] is None and choice["logprobs"] is None:
            return None
        return self._chunk([choice])

    def closing(self) -> list[dict[str, Any]]:
        """Chunks that come after the answer: usage, if it was asked for."""
        if not self._with_usage():
            return []
        return [{**self._chunk([]), "usage": self._usage()}]

    def _with_usage(self) -> bool:
        options = self._asked.stream_options
        return options is not None and options.include_usage

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self._with_usage() else {}
        return {**self._named(".chunk"), "choices": choices, **usage}

    def _named(self, suffix: str) -> dict[str, Any]:
        return {
            **self._head,
            "object": f"chat.completion{suffix}" if self.chat else "text_completion",
        }

    def _usage(self) -> dict[str, Any]:
        read = sum(handle.prompt_tokens for handle in self.prompts)
        cached = sum(handle.cached_tokens for handle in self.prompts)
        return {
            "prompt_tokens": read,
            "completion_tokens": self.completion_tokens,
            "total_tokens": read + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _choice(self, index: int, events: Sequence[Event], whole: bool) -> dict[str, Any]:
        self.completion_tokens += len(events)
        text = "".join(event.text for event in events)
        logprobs = None
        if self._asked.alternatives() is not None:
            logprobs = self._chat_logprobs(events) if self.chat else self._logprobs(index, events)
        self._lengths[index] = self._lengths.get(index, 0) + len(text)
        content: dict[str, Any] = {"text": text}
        if self.chat and whole:
            content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        elif self.chat:
            content = {"delta": {"content": text} if text else {}}
        reason = events[-1].finish_reason
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, events: Sequence[Event]) -> dict[str, Any]:
        offsets, offset = [], self._lengths.get(index, 0)
        for event in events:
            offsets.append(offset)
            offset += len(event.text)
        told = [event for event in events if not event.is_end]
        return {
            "tokens": [self._token(event.token)[0] for event in told],
            "token_logprobs": [max(event.logprob, _WORST) for event in told],
            "top_logprobs": [self._top(event) for event in told],
            "text_offset": offsets[: len(told)],
        }

    def _top(self, event: Event) -> dict[str, float]:
        """The likeliest tokens. Of those with the same text the one that was chosen, else the
        likeliest, goes by it, and the others by their numbers."""
        names = {self._token(event.token)[0]: event.token}
        for token, _ in event.top:
            names.setdefault(self._token(token)[0], token)
        texts = {token: text for text, token in names.items()}
        return {
            texts.get(token, f"token_id:{token}"): max(value, _WORST) for token, value in event.top
        }

    def _chat_logprobs(self, events: Sequence[Event]) -> dict[str, Any]:
        def entry(token: int, logprob: float) -> dict[str, Any]:
            text, data = self._token(token)
            return {"token": text, "logprob": max(logprob, _WORST), "bytes": data}

        content = [
            {
                **entry(event.token, event.logprob),
                "top_logprobs": [entry(token, value) for token, value in event.top],
            }
            for event in events
            if not event.is_end
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int) -> tuple[str, list[int] | None]:
        """A token as text, or as was asked for, and its bytes where they are known."""
        text, data = self._text(token)
        return f"token_id:{token}" if self._asked.return_tokens_as_token_ids else text, data

    def _text(self, token: int) -> tuple[str, list[int] | None]:
        if isinstance(self._tokenizer, ByteTokenizer) and 128 <= token < 256:
            return f"bytes:\\x{token:02x}", [token]
        text = self._tokenizer.decode([token])
        if not text:  # a special token
            return f"<{token}>", None
        return text, None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
