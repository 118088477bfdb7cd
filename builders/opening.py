"""The build opens what the server will open, the way the server opens it, before its first long step and at its end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from builders.export_token2wav import FLOW_FILE, VOCODER_FILE
from builders.tensorrt.capacity_experts import expert_lines
from builders.voices import read_voices
from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import exists, naming, one_line, shown
from runtime.checkpoint.keys import unknown_keys
from runtime.checkpoint.shards import INDEX_FILE, SINGLE_FILE
from runtime.checkpoint.weights import check_weights
from runtime.engines.options import CPU, CUDA
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import CONFIG_FILE, GENERATION_FILE, ModelConfig
from runtime.families.fun_audio_chat.prompt import SYSTEM_PROMPTS, PromptBuilder, render
from runtime.families.fun_audio_chat.tensors import all_shapes
from runtime.frontend.mel import SPEECH_TOKEN_HZ, log_mel, placeholders
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.opening import open_encoder, open_flow, open_vocoder
from runtime.options import Options
from runtime.requests.messages import single_turn
from runtime.token2wav.config import YAML_FILE, Token2WavConfig
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.flow.stage import read_voice_vectors
from runtime.token2wav.layout import VOICES, Sizes
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.weights import fitting_tensors

TOKENIZER, TEMPLATE = "tokenizer", "chat_template"
CONTROL = re.compile(r"<\|\w+\|>")
PROBE_TEXT, PROBE_S = "Hello", 1
WHOLE = "give the whole downloaded checkpoint directory"
AGAIN = "run the build again; if it stays so, report this line"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a build is made from, opened and found good.

    ``question``: positions of a short question. ``notes``: lines for the operator.
    """

    config: ModelConfig
    sound: Token2WavConfig
    question: int
    notes: tuple[str, ...]


def open_inputs(model: Path, cosyvoice: Path, voices: Path | None) -> Inputs:
    """Opens both checkpoints and the voices without reading the weights of the first.

    Raises:
        BuildError: the server could not start with them; names the file, key or tensor, and what to do.
    """
    with naming("MODEL", WHOLE):
        config = ModelConfig.read(model)
        check_weights(model, all_shapes(config))
    question = _open_text(config)
    with naming("preprocessor_config.json", WHOLE):
        log_mel(np.zeros(PROBE_S * config.features.sample_rate, np.float32), config.features)
    with naming("COSYVOICE", "give the downloaded CosyVoice3 directory"):
        sound = Token2WavConfig.read(cosyvoice)
        _open_nets(sound)
    read_voices(cosyvoice, voices, sound.flow.speaker_dim)
    _check_pair(config, sound)
    return Inputs(config, sound, question, (*_notes(model), *expert_lines(config)))


def open_built(folder: Path) -> None:
    """Opens a built folder as the models of the server do, as far as this machine can.

    Raises:
        BuildError: something in it cannot be opened.
    """
    with naming("OUT", AGAIN):
        options = Options.read(folder)
        ModelConfig.read(options.path(options.model))
        sound = options.path(options.token2wav.dir)
        if options.target == CPU:
            open_encoder(options)
            open_flow(options)
            open_vocoder(options)
        elif options.target == CUDA:  # its nets need the GPU, which a machine that builds may lack
            Sizes.read(sound)
            read_voice_vectors(sound / VOICES)


def _open_text(config: ModelConfig) -> int:
    """Tokenizer and template, with one question asked of them. Returns its positions."""
    with naming(TOKENIZER, WHOLE):
        tokenizer = ChatTokenizer(config.directory)
        vocabulary = tokenizer.vocabulary
    _check_tokens(config, vocabulary)
    samples = PROBE_S * config.features.sample_rate
    with naming(TEMPLATE, WHOLE):
        messages = single_turn(SYSTEM_PROMPTS["s2s"], PROBE_TEXT, 1)
        texts = tokenizer.stand_ins()
        rendered = tokenizer.render([render(message, texts) for message in messages])
        ids = PromptBuilder(config, tokenizer).build(messages, [samples])
    unknown = next((word for word in CONTROL.findall(rendered) if word not in vocabulary), None)
    if unknown is not None:
        raise BuildError(TEMPLATE, f"writes {shown(unknown)}, which is no token of the tokenizer", WHOLE)
    expected = placeholders(samples, config.features.sample_rate, config.speech_ids.group_size)
    found = int((ids == config.text_ids.audio).sum())
    if found != expected:
        raise BuildError(TEMPLATE, f"gives a clip {found} positions of sound instead of {expected}", WHOLE)
    return len(ids)


def _check_tokens(config: ModelConfig, vocabulary: dict[str, int]) -> None:
    """The ids of the configuration are those of the tokenizer, and all of these are rows of the embedding."""
    ids, rows = config.text_ids, config.backbone.output_size
    for token, id_ in (("<|AUDIO|>", ids.audio), ("<|audio_bos|>", ids.audio_bos), ("<|audio_eos|>", ids.audio_eos)):
        if vocabulary.get(token) != id_:
            problem = f"{token} is {vocabulary.get(token)} in the tokenizer, but {id_} in {CONFIG_FILE}"
            raise BuildError(TOKENIZER, problem, "both must come from the same checkpoint")
    known = set(vocabulary.values())
    missing = next((id_ for id_ in ids.stop if id_ not in known), None)
    if missing is not None:
        problem = f"eos_token_id {missing} of {GENERATION_FILE} is no token of it"
        raise BuildError(TOKENIZER, problem, "both must come from the same checkpoint")
    if max(known) >= rows:
        problem = f"has ids up to {max(known)}, the embedding {rows} rows"
        raise BuildError(TOKENIZER, problem, "both must come from the same checkpoint")


def _open_nets(sound: Token2WavConfig) -> None:
    with torch.device("meta"):  # names and shapes only
        nets: dict[str, nn.Module] = {FLOW_FILE: Flow(sound.flow), VOCODER_FILE: Vocoder(sound.hift)}
    for file, net in nets.items():
        fitting_tensors(net, sound.directory / file)


def _check_pair(config: ModelConfig, sound: Token2WavConfig) -> None:
    """What the one says, the other can voice."""
    codes = config.speech_ids.first_control
    if codes > sound.flow.vocab_size:
        problem = f"voices {sound.flow.vocab_size} codes, the speech head of MODEL speaks {codes}"
        raise BuildError(f"{YAML_FILE}: flow.vocab_size", problem, "give the CosyVoice3 directory of this model")
    if sound.token_hz != SPEECH_TOKEN_HZ:
        problem = f"is {sound.token_hz}, the model speaks {SPEECH_TOKEN_HZ} codes per second"
        raise BuildError(f"{YAML_FILE}: token_frame_rate", problem, "give the CosyVoice3 directory of this model")


def _notes(model: Path) -> Iterator[str]:
    if exists(model / SINGLE_FILE) and exists(model / INDEX_FILE):
        yield f"note: {SINGLE_FILE} is read, as transformers does; {INDEX_FILE} beside it is not"
    for key in unknown_keys(Fields.read(model / CONFIG_FILE)):
        yield f"note: {CONFIG_FILE}: {one_line(key)} is unknown here and changes nothing"
