"""What a chat becomes for the model."""

import pytest

from hrm_jax.server.chat_template import ChatTemplate

CHAT = [
    {"role": "user", "content": "12"},
    {"role": "assistant", "content": "doce"},
    {"role": "user", "content": "13 < 14"},
]


def test_the_default_is_the_last_question_alone():
    assert ChatTemplate().render(CHAT) == "13 < 14"
    system = {"role": "system", "content": "{{ in Spanish }}"}
    assert ChatTemplate().render([system, *CHAT]) == "{{ in Spanish }}\n13 < 14"
    with pytest.raises(ValueError, match=r"messages: .*last message to be of the user"):
        ChatTemplate().render(CHAT[:2])


def test_a_template_as_models_have_them():
    source = """\
{{ bos_token }}
{%- for m in messages %}
    {%- if loop.index0 == 2 %}{% break %}{% endif %}
<|{{ m['role'] }}|>{{ m | tojson }}
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
    expected = (
        '<|user|>{"role": "user", "content": "12"}\n'
        '<|assistant|>{"role": "assistant", "content": "doce"}\n<|assistant|>'
    )
    assert ChatTemplate(source).render(CHAT) == expected


def test_a_template_cannot_leave_its_sandbox():
    for source in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}"):
        with pytest.raises(ValueError, match=r"messages: the chat template: .*unsafe"):
            ChatTemplate(source).render(CHAT)


def test_a_bad_template_is_named():
    with pytest.raises(ValueError, match="chat_template: line 2: "):
        ChatTemplate("one\n{% if %}")
    with pytest.raises(ValueError, match="messages: the chat template: no such thing"):
        ChatTemplate("{{ raise_exception('no such thing') }}").render(CHAT)
