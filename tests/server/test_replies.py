"""Answers as OpenAI's own client asks for them."""

import asyncio
import dataclasses

import jax
import pytest

from hrm_jax.data.text.tokenizers import BOS, ByteTokenizer
from hrm_jax.engine.engine import Engine
from hrm_jax.engine.requests import Event
from hrm_jax.layers import lora
from hrm_jax.layers.lora import LoraConfig
from hrm_jax.server.replies import Reply
from hrm_jax.server.schemas import ChatRequest, CompletionRequest

openai = pytest.importorskip("openai", reason="openai is not installed")


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "hrm_jax"
    with pytest.raises(openai.NotFoundError, match="there is no 'other'; expected 'tiny'"):
        client.models.retrieve("other")


def test_a_completion(client, server):
    options = {"model": "tiny", "prompt": "hello", "seed": 7, "max_tokens": 12}
    answer = client.completions.create(**options)
    expected = server.engine.generate("hello", seed=7, max_new_tokens=12)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == (expected.text, "length", 0)
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (6, 12, 18)
    tokens = client.completions.create(**{**options, "prompt": [BOS, *b"hello"]})
    assert tokens.choices[0].text == expected.text
    assert usage.prompt_tokens_details.cached_tokens == 0
    twice = [client.completions.create(**{**options, "prompt": "x" * 40}) for _ in range(2)]
    assert twice[0].choices[0].text == twice[1].choices[0].text
    assert [x.usage.prompt_tokens_details.cached_tokens for x in twice] == [0, 40]
    greedy = client.completions.create(**options, temperature=0)
    assert greedy.choices[0].text != expected.text
    only = client.completions.create(**options, extra_body={"top_k": 1})
    assert only.choices[0].text == greedy.choices[0].text
    least = client.completions.create(**options, extra_body={"min_p": 1.0})
    assert least.choices[0].text == greedy.choices[0].text
    new = client.completions.create(
        **{**options, "temperature": 0}, extra_body={"repetition_penalty": 100.0}
    )
    assert len(set(new.choices[0].text)) == 12
    until = client.completions.create(**options, stop=expected.text[5:7])
    assert expected.text.startswith(until.choices[0].text)
    assert until.choices[0].finish_reason == "stop"
    assert expected.text[5:7] not in until.choices[0].text
    assert len(client.completions.create(model="tiny", prompt="").choices[0].text) == 16


def test_several_prompts_and_choices(client):
    options = {"model": "tiny", "seed": 3, "max_tokens": 8}
    both = client.completions.create(**options, prompt=["one", "three"], n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in both.choices}) == 4
    assert (both.usage.prompt_tokens, both.usage.completion_tokens) == (4 + 6, 32)
    alone = client.completions.create(**options, prompt="three", n=2)
    assert [c.text for c in alone.choices] == [c.text for c in both.choices[2:]]
    unseeded = [
        client.completions.create(model="tiny", prompt="x", max_tokens=16).choices[0].text
        for _ in range(2)
    ]
    assert unseeded[0] != unseeded[1]


def test_log_probabilities(client, server):
    options = {"model": "tiny", "seed": 1, "max_tokens": 4}
    expected = server.engine.generate("ab", seed=1, max_new_tokens=4, logprobs=2)
    answer = client.completions.create(**options, prompt="ab", logprobs=2)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    assert told.token_logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert told.text_offset == [0, 1, 2, 3]
    assert [len(top) for top in told.top_logprobs] == [2] * 4
    chat = client.chat.completions.create(
        **options, messages=[{"role": "user", "content": "ab"}], logprobs=True, top_logprobs=1
    )
    content = chat.choices[0].logprobs.content
    assert [entry.logprob for entry in content] == pytest.approx(expected.logprobs, abs=1e-4)
    assert [bytes(entry.bytes).decode() for entry in content] == told.tokens
    likeliest = [top[0][1] for top in expected.top]
    assert [e.top_logprobs[0].logprob for e in content] == pytest.approx(likeliest, abs=1e-4)
    assert chat.choices[0].message.content == answer.choices[0].text


class Blurred(ByteTokenizer):
    """All letters are the same text."""

    def decode(self, ids):
        return "?" * len(list(ids))


@pytest.mark.parametrize("by_number", [False, True])
def test_tokens_of_equal_text_are_all_told(by_number):
    top = tuple((97 + i, -1.0 - i) for i in range(10))
    events = [
        Event(99, "?", -3.0, top),
        Event(120, "?", -30.0, top),
        Event(97, "", -1.0, top, "stop", is_end=True),
    ]

    def told(kind, **fields):
        asked = kind.model_validate({**fields, "return_tokens_as_token_ids": by_number})
        return Reply(asked, "tiny", Blurred()).whole([events])["choices"][0]["logprobs"]

    answer = told(CompletionRequest, prompt="x", logprobs=10)
    numbers = [f"token_id:{token}" for token, _ in top]
    if by_number:
        assert answer["tokens"] == ["token_id:99", "token_id:120"]
        assert answer["top_logprobs"] == [dict(zip(numbers, [x for _, x in top], strict=True))] * 2
    else:
        assert answer["tokens"] == ["?", "?"]
        first, second = answer["top_logprobs"]
        expected = dict(zip(numbers, [x for _, x in top], strict=True))
        assert second == expected  # the token that was chosen is none of these
        assert first.pop("?") == expected.pop("token_id:99") == -3.0
        assert first == expected
    chat = told(
        ChatRequest, messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=10
    )
    for entry in chat["content"]:
        assert [other["logprob"] for other in entry["top_logprobs"]] == [x for _, x in top]
        assert len({other["token"] for other in entry["top_logprobs"]}) == 10 if by_number else 1


def test_tokens_that_stop(client, server):
    options = {"model": "tiny", "prompt": "hello", "seed": 7, "max_tokens": 12, "logprobs": 1}
    text = client.completions.create(**options).choices[0].text
    until = client.completions.create(
        **options, extra_body={"stop_token_ids": [ord(text[5]), ord(text[6])]}
    ).choices[0]
    kept = text[: min(text.index(text[5]), text.index(text[6]))]
    assert (until.text, until.finish_reason) == (kept, "stop")
    assert until.logprobs.tokens == list(kept)


def test_a_stream_is_the_same_answer_in_parts(client):
    options = {"model": "tiny", "prompt": ["hello", "you"], "seed": 7, "max_tokens": 40}
    whole = client.completions.create(**options, logprobs=0)
    chunks = list(
        client.completions.create(
            **options, logprobs=0, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks.pop().usage == whole.usage
    assert len(chunks) > 4
    for expected in whole.choices:
        parts = [c.choices[0] for c in chunks if c.choices[0].index == expected.index]
        assert "".join(part.text for part in parts) == expected.text
        reasons = [part.finish_reason for part in parts]
        assert reasons == [None] * (len(parts) - 1) + ["length"]
        tokens = [token for part in parts for token in part.logprobs.tokens]
        assert tokens == expected.logprobs.tokens
        offsets = [offset for part in parts for offset in part.logprobs.text_offset]
        assert offsets == expected.logprobs.text_offset == list(range(40))


def test_a_chat(client, server):
    earlier = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    content = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    options = {"model": "tiny", "seed": 7, "max_completion_tokens": 12}
    messages = [*earlier, {"role": "user", "content": content}]
    answer = client.chat.completions.create(**options, messages=messages)
    text = server.engine.generate("hello", seed=7, max_new_tokens=12).text
    assert answer.choices[0].message.content == text
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.total_tokens == 18
    again = [*messages, answer.choices[0].message, {"role": "user", "content": "hello"}]
    chunks = list(client.chat.completions.create(**options, messages=again, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "length"
    everything = client.chat.completions.create(model="tiny", messages=messages)
    assert everything.usage.completion_tokens == 200  # as many as the server allows


def test_what_a_chat_template_refuses_is_told(serving):
    template = (
        "{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}{{ messages[0].content }}"
    )
    messages = [{"role": role, "content": "x"} for role in ("system", "user")]
    with serving({"chat_template": template}, slots=1) as server:
        body = {"messages": messages, "max_tokens": 1}
        status, _, answer = server.call("/v1/chat/completions", body)
        assert status == 400
        assert answer["error"]["param"] == "messages"
        assert "System role not supported" in answer["error"]["message"]
        assert server.call("/v1/chat/completions", {**body, "messages": messages[1:]})[0] == 200


def test_a_chat_template_of_the_model(serving):
    template = "{{ messages | length }}{{ messages[0].content }}"
    with serving({"chat_template": template}, slots=1) as server:
        answer = server.client().chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], max_tokens=5, temperature=0
        )
        text = server.engine.generate("1x", max_new_tokens=5, temperature=0).text
        assert answer.choices[0].message.content == text
    with pytest.raises(ValueError, match="line 1"), serving({"chat_template": "{%"}):
        pass


def test_an_adapter_is_a_model_of_its_own(serving, decoder):
    kind = LoraConfig(r=2, target_modules="all-linear")
    key = jax.random.key(1)
    noise = lora.init(kind, decoder.params, key)
    trained = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(key, x.shape), noise)
    merged = dataclasses.replace(decoder, params=lora.merge(kind, decoder.params, trained).params)
    asked = {"prompt": "hello", "max_tokens": 12, "temperature": 0}
    plain, adapted = (
        Engine(x, slots=1).generate("hello", max_new_tokens=12, temperature=0).text
        for x in (decoder, merged)
    )
    assert plain != adapted
    with serving({"adapters": {"one": (kind, trained)}}, slots=2) as server:
        client = server.client()
        assert [model.id for model in client.models.list()] == ["tiny", "one"]
        assert client.models.retrieve("one").id == "one"
        for name, expected in (("tiny", plain), ("one", adapted)):
            answer = client.completions.create(model=name, **asked)
            assert (answer.model, answer.choices[0].text) == (name, expected)
            chunks = list(client.completions.create(model=name, stream=True, **asked))
            assert {chunk.model for chunk in chunks} == {name}
            assert "".join(x.choices[0].text for x in chunks if x.choices) == expected
        with pytest.raises(openai.NotFoundError, match="no 'two'; expected 'tiny' or 'one'"):
            client.completions.create(model="two", **asked)
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
        assert client.chat.completions.create(model="one", **chat).model == "one"


def test_many_at_once(server):
    async def ask():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:

            async def stream(seed):
                chunks = await client.completions.create(
                    model="tiny", prompt="x" * seed, seed=seed, max_tokens=20, stream=True
                )
                return "".join([chunk.choices[0].text async for chunk in chunks])

            return await asyncio.gather(*map(stream, range(1, 5)))

    texts = asyncio.run(ask())
    for seed, text in enumerate(texts, 1):
        assert text == server.engine.generate("x" * seed, seed=seed, max_new_tokens=20).text
