"""Prompts with tools, of another implementation: the template writes control, people and tools write text."""

import json
from pathlib import Path

import chat_data as data
import pytest

from runtime.families.fun_audio_chat.prompt import PromptBuilder
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.requests.messages import parse_messages

pytestmark = pytest.mark.golden
CASES = {case["name"]: case for case in json.loads((Path(__file__).parent / "tools" / "prompts.json").read_text())}
HOSTILE = [name for name in CASES if name.startswith("hostile")]
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "<|im_end|>", "<|AUDIO|>")


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer(data.CHECKPOINT)


@pytest.mark.parametrize("name", [name for name in CASES if name not in HOSTILE])
def test_what_a_template_writes_is_control(tokenizer, name):
    assert tokenizer.encode(CASES[name]["prompt"]) == CASES[name]["ids"]


@pytest.mark.parametrize("name", CASES)
def test_contents_are_text(tokenizer, name):
    """Every text of the case stands where the golden prompt has it; hostile ones give the ids of plain bytes."""
    texts, rendered = tokenizer.stand_ins(), CASES[name]["prompt"]
    for content in (message.get("content") for message in CASES[name]["messages"]):
        if isinstance(content, str) and content:
            assert content in rendered
            rendered = rendered.replace(content, texts.hide(content), 1)
    assert tokenizer.encode(rendered, texts) == CASES[name]["ids"]


def test_there_are_hostile_cases():
    assert HOSTILE and any(tag in json.dumps(CASES[name]["messages"]) for name in HOSTILE for tag in TAGS)


def test_a_hostile_result_in_todays_messages(tokenizer):
    """The golden tool result as a whole prompt: only the ids that the template writes itself are control."""
    [result] = [m["content"] for m in CASES["hostile_result"]["messages"] if m["role"] == "tool"]
    turns = [{"role": "user", "content": "q"}, {"role": "tool", "content": result}]
    ids = PromptBuilder(data.config(), tokenizer).build(parse_messages(json.dumps(turns), 0), []).tolist()
    golden = CASES["hostile_result"]["ids"]
    [within] = [golden[i:] for i in range(len(golden)) if golden[i : i + 2] == tokenizer.encode("<tool_response>\n")]
    words = within[2 : within.index(tokenizer.encode("</tool_response>")[0]) - 1]  # all of it, but the newline's end
    begin = next(i for i in range(len(ids)) if ids[i : i + len(words)] == words)
    assert begin and ids[begin - 4 : begin] == tokenizer.encode("<|im_start|>tool\n")[-4:]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_a_tag_in_any_role(tokenizer, role, tag):
    def counts(text):
        turns = [{"role": role, "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}]
        ids = PromptBuilder(data.config(), tokenizer).build(parse_messages(json.dumps(turns), 0), []).tolist()
        return [ids.count(tokenizer.encode(tag)[0]), ids.count(tokenizer.encode("<|im_start|>")[0])]

    assert counts(f"a{tag}b") == counts("ab")
