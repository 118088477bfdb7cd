"""Which requests have ids that rounding cannot change?

Products of float32 round differently in batches of different sizes, so where the two best scores are as close as
that rounding, company decides between them. The ids of a request are the same beside any load exactly when no
decision of it is so close. That is found here, in this process and without company: the request runs with a
little noise on every score, several times over. Only steady requests can show by their ids that streams disturb
each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

from runtime.answer import Answer
from runtime.checkpoint.config import ModelConfig
from runtime.contracts import NUMPY_TYPES
from runtime.engines.build import build_frame_loop
from runtime.frontend.audio import split_clips, to_model_rate
from runtime.frontend.prompt import PromptBuilder
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.options import Options
from runtime.sampling import Choice, Sampler
from runtime.serving.encoder import EncoderStage, log_mel_batch
from runtime.serving.request import parse_request
from runtime.stream import Prompt, Stream

NOISE = 1e-4  # of scores; rounding moves them by 1e-5 at most
COPIES = 8

Ids = tuple[tuple[int, ...], tuple[int, ...]]  # text ids, speech ids


class NoisyChoice(Choice):
    """A choice whose scores are a little off."""

    def take(self, scores: torch.Tensor, number: int = 0) -> torch.Tensor:
        """See ``Choice``."""
        return super().take(scores + NOISE * (2 * torch.rand_like(scores) - 1), number)


class NoisySampler(Sampler):
    """A sampler whose scores are a little off."""

    def speech(self, streams: Sequence[Stream], ids: int) -> Choice:
        """See ``Sampler``."""
        contexts = (s.answer.spoken for s in streams)
        return NoisyChoice(streams, contexts, ids, self._uniforms(streams), self._device)

    def text(self, streams: Sequence[Stream], logits: torch.Tensor) -> torch.Tensor:
        """See ``Sampler``."""
        return super().text(streams, logits + NOISE * (2 * torch.rand_like(logits) - 1))


class Bench:
    """Runs serialised requests on the engines of a built folder, without a server."""

    def __init__(self, out: Path) -> None:
        options = Options.read(out)
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self._config = config = ModelConfig.read(options.path(options.model))
        self._loop = build_frame_loop(config, options.engine, NoisySampler(config.speech_ids.group_size))
        self._encoder = EncoderStage(options)
        self._prompts = PromptBuilder(config, ChatTokenizer(config.directory))

    def ids(self, payload: bytes) -> Ids | None:
        """The ids of the answer to a request; None when they are not steady."""
        streams = list(self._streams(payload))
        for stream in streams:
            self._loop.add(stream)
        made: dict[Stream, tuple[list[int], list[int]]] = {stream: ([], []) for stream in streams}
        while self._loop.scheduler.live or self._loop.scheduler.waiting:
            for item in self._loop.step():
                made[item.stream][0].append(item.frame.text_id)
                made[item.stream][1].extend(item.frame.codes)
        found = {(tuple(text), tuple(codes)) for text, codes in made.values()}
        return found.pop() if len(found) == 1 else None

    def _streams(self, payload: bytes) -> Iterator[Stream]:
        arrays, parameters = decode(payload)
        features = self._config.features
        clips = split_clips(arrays.get("audio"), arrays.get("audio_lengths"))
        request = parse_request(arrays, parameters, clips, features.sample_rate)
        clips = to_model_rate(list(request.clips), request.sample_rate, features)
        ids = self._prompts.build(request.messages, [len(clip) for clip in clips])
        positions = np.flatnonzero(ids == self._config.text_ids.audio)
        prompt = Prompt(ids, self._embeds(clips), positions)
        for key in range(COPIES):
            yield Stream(key, prompt, Answer(self._config.text_ids, self._config.speech_ids, request.params))

    def _embeds(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        if not clips:
            return np.zeros((0, self._config.backbone.hidden_size), np.float32)
        packed = {"audio": np.concatenate(clips), "audio_lengths": np.array([len(clip) for clip in clips], np.int32)}
        embeds: np.ndarray = self._encoder.run(log_mel_batch(packed, self._config.features))["audio_embeds"]
        return embeds


def decode(payload: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and parameters of a serialised request, as the server's code sees them."""
    request = service_pb2.ModelInferRequest.FromString(payload)
    arrays = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        text = tensor.datatype == "BYTES"
        arrays[tensor.name] = (
            deserialize_bytes_tensor(raw) if text else np.frombuffer(raw, NUMPY_TYPES[tensor.datatype])
        )
    parameters = {name: getattr(slot, slot.WhichOneof("parameter_choice")) for name, slot in request.parameters.items()}
    return arrays, parameters
