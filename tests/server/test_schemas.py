"""Fields of requests: what is refused by name, and what is taken."""

import re

import pytest

USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"prompt": None}, "prompt", "Field required"),
        ({"prompt": []}, "prompt", "expected a text, a list of texts"),
        ({"prompt": ["x", 1]}, "prompt", "expected a text, a list of texts"),
        ({"prompt": [[1], []]}, "prompt", "expected a text, a list of texts"),
        ({"prompt": [True]}, "prompt", "expected a text, a list of texts"),
        ({"prompt": [1, 260]}, "prompt", r"expected tokens in \[0, 260\), got 260"),
        ({"prompt": "x" * 300}, "prompt", "expected at most 255 tokens"),
        ({"prompt": ["x"] * 5}, "prompt", "expected at most 4 answers in one request, got 5"),
        ({"prompt": [2**40]}, "prompt", r"expected tokens in \[0, 260\), got 1099511627776"),
        ({"prompt": [[3], [2**70]]}, "prompt", r"expected tokens in \[0, 260\), got 1180"),
        ({"prompt": [-1]}, "prompt", r"expected tokens in \[0, 260\), got -1"),
        ({"stop_token_ids": [260]}, "stop_token_ids", r"expected tokens in \[0, 260\), got 260"),
        ({"stop_token_ids": [-1]}, "stop_token_ids", r"expected tokens in \[0, 260\), got -1"),
        ({"stop_token_ids": [2**70]}, "stop_token_ids", r"expected tokens in \[0, 260\), got"),
        ({"stop_token_ids": 97}, "stop_token_ids", "valid array"),
        ({"n": 3}, "n", "expected at most 2, got 3"),
        ({"n": 0}, "n", "greater than or equal to 1, got 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 201}, "max_tokens", "expected at most 200, got 201"),
        ({"max_tokens": 2**70}, "max_tokens", "expected at most 200, got 118"),
        ({"messages": [USER], "max_tokens": 201}, "max_tokens", "expected at most 200, got 201"),
        (
            {"messages": [USER], "max_completion_tokens": 201},
            "max_completion_tokens",
            "expected at most 200, got 201",
        ),
        ({"messages": [{**USER, "content": "x" * 300}]}, "messages", "at most 255 tokens"),
        ({"max_tokens": "9"}, "max_tokens", "valid integer, got '9'"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"top_k": -2}, "top_k", "greater than or equal to -1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to"),
        ({"seed": 1 << 70}, "seed", "."),
        ({"stop": [""]}, "stop[0]", "at least 1 character"),
        ({"stop": ["x"] * 17}, "stop", "at most 16 items"),
        ({"stop": 3}, "stop", "valid array"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"logprobs": True}, "logprobs", "valid integer"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only with stream=true"),
        ({"echo": True}, "echo", "not supported; expected none, or False"),
        ({"suffix": "end"}, "suffix", "not supported"),
        ({"best_of": 2}, "best_of", "not supported"),
        ({"logit_bias": {"50": 1}}, "logit_bias", "not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
        ({"max_new_tokens": 5}, "max_new_tokens", "not a field that this server knows"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{**USER, "role": "tool"}]}, "messages[0].role", "'system'"),
        ({"messages": [USER, {"role": "user"}]}, "messages[1].content", "Field required"),
        ({"messages": [{**USER, "tool_calls": [1]}]}, "messages[0].tool_calls", "not supported"),
        (
            {"messages": [{**USER, "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            'parts of the type "text" only',
        ),
        ({"messages": [{**USER, "role": "assistant"}]}, "messages", "last message to be of the"),
        ({"messages": [USER], "top_logprobs": 2}, "top_logprobs", "only with logprobs=true"),
        ({"messages": [USER], "tools": [{}]}, "tools", "not supported"),
        ({"messages": [USER], "response_format": {"type": "json_object"}}, "response_format", "."),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields, param, message, server):
    path = "chat/completions" if "messages" in fields else "completions"
    body = fields if "messages" in fields else {"prompt": "x", **fields}
    status, _, answer = server.call(f"/v1/{path}", body)
    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"].startswith(param.partition("[")[0])
    assert re.search(message, error["message"])


def test_what_asks_for_nothing_is_taken(client):
    answer = client.completions.create(
        model="tiny", prompt="x", user="me", best_of=1, echo=False, frequency_penalty=0,
        logit_bias={}, suffix=None, max_tokens=1, extra_body={"metadata": {"a": "b"}},
    )  # fmt: skip
    assert answer.usage.completion_tokens == 1
    client.chat.completions.create(
        model="tiny", messages=[{**USER, "name": "me"}], max_tokens=1, tool_choice="none",
        response_format={"type": "text"}, store=False,
    )  # fmt: skip


def test_a_prompt_that_is_too_long_has_openais_code(server):
    for path, body in (
        ("completions", {"prompt": "x" * 300}),
        ("chat/completions", {"messages": [{**USER, "content": "x" * 300}]}),
    ):
        _, _, answer = server.call(f"/v1/{path}", body)
        assert answer["error"]["code"] == "context_length_exceeded"
    assert server.call("/v1/completions", {"prompt": [999]})[2]["error"]["code"] is None


def test_vllms_neutral_values(client):
    answer = client.completions.create(
        model="tiny", prompt="x", max_tokens=1,
        extra_body={
            "top_k": -1, "min_tokens": 0, "skip_special_tokens": True, "use_beam_search": False,
            "stop_token_ids": None, "ignore_eos": False,
        },
    )  # fmt: skip
    assert answer.usage.completion_tokens == 1
