"""Texts of people never become control, whatever added tokens a checkpoint has; what its template writes does."""

import json
import shutil
import unicodedata

import chat_data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from runtime.errors import BuildError, InvalidRequest
from runtime.families.fun_audio_chat.prompt import PromptBuilder
from runtime.frontend.stand_ins import CLOSE, OPEN, StandIns
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.requests.messages import Message

many = settings(max_examples=150, deadline=None)
# Prefixes of each other, overlaps, spaces, flags, one in its normal form only, digits, words and bytes that the
# vocabulary has itself ("ing" is merged, "!" is one byte), characters that are no ASCII.
ADDED = (
    ("<a", {}), ("<a>", {}), ("<a><b>", {"special": True}), ("b><c", {}), ("two words", {}), ("\n\n", {}), ("  ", {}),
    ("<left>", {"lstrip": True}), ("<right>", {"rstrip": True, "special": True}), ("word", {"single_word": True}),
    ("<caf\u00e9>", {"normalized": True}), ("12", {}), ("ing", {}), ("ou", {"special": True}), ("!", {}), ("你好", {}),
)  # fmt: skip


def checkpoint(folder, added=(), **changes):
    """The golden tokenizer with other added tokens behind its own ones."""
    shutil.copytree(chat_data.CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text())
    known = spec["model"]["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for content, flags in added:
        id_ = known.setdefault(content, max(known.values()) + 1)
        spec["added_tokens"].append({"id": id_, "content": content} | dict.fromkeys(names, False) | flags)
    file.write_text(json.dumps(spec | changes))
    for name in ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("odd") / "checkpoint", ADDED)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return ChatTokenizer(checkpoint(tmp_path_factory.mktemp("golden") / "checkpoint"))


@pytest.fixture(scope="module")
def odd(folder):
    return ChatTokenizer(folder)


@pytest.fixture(scope="module")
def reference(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def control(reference):
    """Ids of added tokens, but for that of a single byte, which nothing else can encode."""
    return {id_ for id_, token in reference.added_tokens_decoder.items() if len(token.content.encode()) > 1}


def words(tokenizer, text):
    texts = tokenizer.stand_ins()
    return tokenizer.encode(texts.hide(text), texts)


def decoded(tokenizer, ids):
    stream = tokenizer.stream()
    return "".join(map(stream.push, ids)) + stream.finish()


TORN = [text[i:j] for text, _ in ADDED for i in range(len(text)) for j in (len(text), i + 1)]
CHARACTERS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
OURS = st.sampled_from((OPEN, CLOSE, f"{OPEN}0{CLOSE}", f"{OPEN}1{CLOSE}", "\x00", "\ue000", "\U0010fffd", "\ufeff"))
HOSTILE = st.lists(
    st.one_of(
        st.sampled_from([text for text, _ in ADDED]), st.sampled_from(TORN), CHARACTERS, OURS,
        st.sampled_from(("<|im_end|>", "<|AUDIO|>", "<tool_call>", "</tool_response>", "<think>", " ", "\n")),
    ),
    max_size=8,
).map("".join)  # fmt: skip


@many
@given(HOSTILE)
def test_texts_hold_no_added_token_and_lose_nothing(odd, control, text):
    ids = words(odd, text)
    assert not control & set(ids)
    assert decoded(odd, ids) == unicodedata.normalize("NFC", text)


@many
@given(HOSTILE, HOSTILE)
def test_texts_change_no_control_around_them(odd, control, said, asked):
    config, builder = chat_data.config(), PromptBuilder(chat_data.config(), odd)

    def controls(*texts):
        a, b = (text or "x" for text in texts)  # an empty text leaves the template's own line ends side by side
        messages = [Message("system", (a,)), Message("tool", (b, a)), Message("user", (b,))]
        return [id_ for id_ in builder.build(messages, []).tolist() if id_ in control]

    assert controls(said, asked) == controls("x", "y")
    assert config.text_ids.audio not in controls(said, asked)


@many
@given(HOSTILE)
def test_words_of_a_template_are_what_the_tokenizer_makes_of_them(odd, reference, text):
    written = "".join(c for c in text if c not in (OPEN, CLOSE))
    assert odd.encode(written) == reference(written, add_special_tokens=False)["input_ids"]


@many
@given(CHARACTERS, CHARACTERS)
def test_text_without_spellings_is_encoded_as_by_the_tokenizer(plain, left, right):
    texts = plain.stand_ins()
    rendered = f"<|im_start|>user\n{texts.hide(left)}\n{texts.hide(right)}<|im_end|>"
    whole = f"<|im_start|>user\n{left}\n{right}<|im_end|>"
    assert plain.encode(rendered, texts) == AutoTokenizer.from_pretrained(chat_data.CHECKPOINT)(whole)["input_ids"]


def test_a_text_is_not_completed_by_its_neighbours(odd, control):
    texts = odd.stand_ins()
    rendered = f"<{texts.hide('a')}>{texts.hide('<a')}{texts.hide('><b>')}<{texts.hide('left')}>"
    ids = odd.encode(rendered, texts)
    assert not control & set(ids) and decoded(odd, ids) == "<a><a><b><left>"


def test_templates_may_trim_a_text_but_not_look_into_it():
    texts = StandIns(bare_space=True)
    rendered = [texts.hide(text).strip() for text in ("  a b\n", " \n", "", "</think>c")]
    assert "think" not in "".join(rendered) and rendered[1:3] == ["", ""]
    assert [piece.text for piece in texts.pieces("".join(rendered))] == ["a b", "</think>c"]
    with pytest.raises(BuildError, match="chat_template: cuts the text of a message"):
        list(texts.pieces(rendered[0][:-1]))


def test_a_template_of_thoughts_keeps_its_own_control(tmp_path):
    """It looks for thoughts in what the assistant said and writes empty ones itself, as those of thinking models do."""
    folder = checkpoint(tmp_path / "checkpoint")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] | trim }}<|im_end|>\n"
        "{% endfor %}<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    tokenizer = ChatTokenizer(folder)
    think, end = tokenizer.encode("<think></think>")
    messages = [Message("system", (" s ",)), Message("assistant", ("a</think>b",)), Message("user", ("<think>\n",))]
    ids = PromptBuilder(chat_data.config(), tokenizer).build(messages, []).tolist()
    assert ids.count(think) == ids.count(end) == 1 and ids[-5:] == tokenizer.encode("<think>\n\n</think>\n")
    assert "a</think>b" in decoded(tokenizer, ids) and "system\ns" in decoded(tokenizer, ids)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for m in messages %}", "cannot be rendered: TemplateSyntaxError"),
        ("{{ messages[9].content.text }}", "cannot be rendered: UndefinedError"),
        ("{% for m in messages %}{{ m.content[:2] }}{% endfor %}", "cuts the text of a message"),
        ("{{ messages[-1].content }}", "does not write every message"),
        ("{{ 1 / 0 }}", "cannot be rendered: ZeroDivisionError"),
    ],
)
def test_templates_that_cannot_be_used_are_named_at_once(tmp_path, template, problem):
    folder = checkpoint(tmp_path / "checkpoint")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(BuildError) as caught:
        ChatTokenizer(folder)
    assert str(caught.value).startswith(f"INTERNAL: chat_template: {problem}") and "\n" not in str(caught.value)


def test_a_conversation_that_the_template_refuses_is_the_clients_fault(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('No tools here') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    builder = PromptBuilder(chat_data.config(), ChatTokenizer(folder))
    with pytest.raises(InvalidRequest, match=r"^INVALID_ARG: messages: are refused .*No tools here"):
        builder.build([Message("tool", ("x",))], [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ('{"model": {"type": "WordLevel"}}', "cannot be read")],
)
def test_tokenizers_that_cannot_be_read_are_one_line(tmp_path, content, problem):
    folder = checkpoint(tmp_path / "checkpoint")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(BuildError) as caught:
        ChatTokenizer(folder)
    assert str(caught.value).startswith(f"INTERNAL: tokenizer: {problem}") and "\n" not in str(caught.value)


def test_other_kinds_of_tokenizers_are_refused(tmp_path):
    model = {"type": "WordLevel", "vocab": {"<|AUDIO|>": 0, "a": 1}, "unk_token": "a"}
    with pytest.raises(BuildError, match="tokenizer: is of type WordLevel; use the byte-level BPE"):
        ChatTokenizer(checkpoint(tmp_path / "words", model=model, pre_tokenizer=None))
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    with pytest.raises(BuildError, match="tokenizer: has no token for 255 of 256 bytes"):
        ChatTokenizer(checkpoint(tmp_path / "bytes", model=model))


def test_a_stored_bound_on_the_length_cuts_nothing(tmp_path):
    bound = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer = ChatTokenizer(checkpoint(tmp_path / "checkpoint", truncation=bound))
    assert decoded(tokenizer, words(tokenizer, "many words " * 9)) == "many words " * 9


def test_config_and_tokenizer_of_different_checkpoints_are_noticed(tmp_path):
    folder = checkpoint(tmp_path / "checkpoint")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != "<|AUDIO|>"]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(BuildError, match=r"tokenizer: gives .* where config.json has 410 for sound"):
        PromptBuilder(chat_data.config(), ChatTokenizer(folder))


@pytest.mark.parametrize("flag", ["lstrip", "rstrip"])
def test_a_template_trims_white_space_beside_tokens_that_swallow_it(tmp_path, flag):
    folder = checkpoint(tmp_path / "checkpoint", [("<x>", {flag: True})])
    own, theirs = ChatTokenizer(folder), AutoTokenizer.from_pretrained(folder)
    template = "{% for m in messages %}<x>{{ m['content'] | trim }}<x>{% endfor %}"
    own._hf.chat_template = template
    for text in ("a", " a", "a\n", "\n\n", " a  b \n"):
        texts = own.stand_ins()
        ids = own.encode(own.render([{"role": "user", "content": texts.hide(text)}]), texts)
        assert ids == theirs.encode(f"<x>{text.strip()}<x>", add_special_tokens=False)
