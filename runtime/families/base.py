"""What the server asks of a model family. Nothing else of a family is known outside its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # stages run in processes that need no torch
    from pathlib import Path

    from runtime.checkpoint.features import FeatureConfig
    from runtime.engines.options import EngineOptions
    from runtime.frames.loop import FrameLoop
    from runtime.frontend.options import EncoderOptions
    from runtime.frontend.tokenizer import ChatTokenizer
    from runtime.params import AnswerParams
    from runtime.requests.messages import Message
    from runtime.scheduling.caches import CacheSpec
    from runtime.scheduling.stream import Answer, Prompt


class Family(Protocol):
    """One opened checkpoint.

    Attributes:
        frame_s: seconds of speech in one frame of an answer.
        position_hz: prompt positions for a second of sound.
        caches: KV caches, those that only speaking streams need last.
        features: what sound is turned into before it is encoded.
        tokenizer: of text.
        system_prompts: default system message of each mode.
    """

    frame_s: float
    position_hz: float
    caches: tuple[CacheSpec, ...]
    features: FeatureConfig
    tokenizer: ChatTokenizer
    system_prompts: Mapping[str, str]

    def prompt(self, messages: Sequence[Message], clips: Sequence[int]) -> Prompt:
        """Ids of a conversation, what of them may be shared, and zeros for the rows of its sound.

        Args:
            clips: samples of each clip, in the order of the messages' audio parts.
        """

    def answer(self, params: AnswerParams) -> Answer:
        """The rules of one answer. Raises InvalidRequest for parameters that the model cannot take."""

    def loop(self, options: EngineOptions, engines: Path | None) -> FrameLoop:
        """A frame loop over the checkpoint, ready to run.

        Args:
            engines: folder of compiled engines; None runs the checkpoint itself.

        Raises:
            BuildError: a tensor or an engine is missing or does not fit, or there is no such device.
        """


class EncoderStage(Protocol):
    """The audio encoder of a checkpoint in a process of its own."""

    def __init__(
        self,
        graph: Path,
        model: Path,
        encoder: EncoderOptions,
        features: FeatureConfig,
        engine: str,
        threads: int,
        gpu: int,
    ) -> None:
        """Opens the exported ``graph``, or the weights of ``model``, as ``engine`` says."""

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Inputs of the ``audio_encoder`` contract to its outputs."""
