"""Sizes and special ids of a Fun-Audio-Chat checkpoint, read from its own files.

Nothing here is a default of the released model: a size that the files do not state is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from runtime.checkpoint.fields import Fields
from runtime.errors import BuildError


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A Qwen3 decoder stack (backbone or speech head).

    ``output_size`` is the width of the logits: the vocabulary or the codebook.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rope_theta: float
    rms_norm_eps: float
    max_positions: int
    output_size: int

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads: {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim: {self.head_dim} is odd, rotary positions need pairs")

    @classmethod
    def read(cls, fields: Fields, output_size: int) -> DecoderConfig:
        """From a ``text_config`` or ``crq_transformer_config`` section."""
        fields.refuse("hidden_act", ("silu",))
        fields.refuse("rope_scaling", (None,))
        fields.refuse("attention_bias", (False,))
        fields.refuse("use_sliding_window", (False,))
        return cls(
            hidden_size=fields.get("hidden_size", int),
            num_layers=fields.get("num_hidden_layers", int),
            num_heads=fields.get("num_attention_heads", int),
            num_kv_heads=fields.get("num_key_value_heads", int),
            head_dim=fields.get("head_dim", int),
            intermediate_size=fields.get("intermediate_size", int),
            rope_theta=fields.get("rope_theta", float),
            rms_norm_eps=fields.get("rms_norm_eps", float),
            max_positions=fields.get("max_position_embeddings", int),
            output_size=output_size,
        )


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The continuous audio encoder (Whisper-style, attention inside windows of ``2 * n_window`` mel frames)."""

    num_mel_bins: int
    d_model: int
    num_layers: int
    num_heads: int
    ffn_size: int
    n_window: int
    output_dim: int
    group_size: int

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model: {self.d_model} is not a multiple of num_heads {self.num_heads}")
        # Two halvings (convolution, pooling), then groups: windows must not share a group.
        if self.n_window % (2 * self.group_size):
            raise ValueError(f"n_window: {self.n_window} is not a multiple of {2 * self.group_size}")

    @property
    def window_frames(self) -> int:
        """Mel frames of one attention window."""
        return 2 * self.n_window

    @property
    def window_groups(self) -> int:
        """Grouped rows (5 Hz) that one full window gives."""
        return self.n_window // (2 * self.group_size)


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """The log-mel extractor. Times in samples of ``sample_rate``."""

    sample_rate: int
    num_mel_bins: int
    n_fft: int
    hop_length: int
    n_samples: int

    @property
    def seconds(self) -> Fraction:
        """Longest audio."""
        return Fraction(self.n_samples, self.sample_rate)


@dataclass(frozen=True, slots=True)
class SpeechIds:
    """Ids of the speech codebook. Codes below ``first_control`` are sound, the rest control."""

    codebook_size: int
    bos: int
    eos: int
    pad: int
    group_size: int

    @property
    def first_control(self) -> int:
        """The lowest control id."""
        return min(self.bos, self.eos, self.pad)


@dataclass(frozen=True, slots=True)
class TextIds:
    """Special ids of the text vocabulary."""

    audio: int
    audio_bos: int
    audio_eos: int
    stop: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that the runtime needs to know of one checkpoint."""

    directory: Path
    backbone: DecoderConfig
    speech_head: DecoderConfig
    encoder: EncoderConfig
    features: FeatureConfig
    text_ids: TextIds
    speech_ids: SpeechIds

    @classmethod
    def read(cls, directory: Path) -> ModelConfig:
        """Reads config.json, generation_config.json and preprocessor_config.json.

        Raises:
            BuildError: a file or key is missing, ill-typed, or asks for something not implemented.
        """
        config = Fields.read(directory / "config.json")
        text, audio = config.section("text_config"), config.section("audio_config")
        audio.refuse("continuous_features_mode", ("replace",))
        audio.refuse("enable_audio_invert_tower", (True,))
        audio.refuse("activation_function", ("gelu",))
        audio.refuse("scale_embedding", (False,))
        speech_ids = SpeechIds(
            codebook_size=audio.get("codebook_size", int),
            bos=audio.get("bos_token_id", int),
            eos=audio.get("eos_token_id", int),
            pad=audio.get("pad_token_id", int),
            group_size=audio.get("group_size", int),
        )
        try:
            return cls(
                directory=directory,
                backbone=DecoderConfig.read(text, text.get("vocab_size", int)),
                speech_head=DecoderConfig.read(audio.section("crq_transformer_config"), speech_ids.codebook_size),
                encoder=_encoder(audio, speech_ids.group_size),
                features=_features(Fields.read(directory / "preprocessor_config.json")),
                text_ids=_text_ids(config, text, Fields.read(directory / "generation_config.json")),
                speech_ids=speech_ids,
            )
        except ValueError as error:
            raise BuildError("config.json", str(error), "check the checkpoint's version") from None


def _encoder(audio: Fields, group_size: int) -> EncoderConfig:
    return EncoderConfig(
        num_mel_bins=audio.get("num_mel_bins", int),
        d_model=audio.get("d_model", int),
        num_layers=audio.get("encoder_layers", int),
        num_heads=audio.get("encoder_attention_heads", int),
        ffn_size=audio.get("encoder_ffn_dim", int),
        n_window=audio.get("n_window", int),
        output_dim=audio.get("output_dim", int),
        group_size=group_size,
    )


def _features(fields: Fields) -> FeatureConfig:
    sample_rate = fields.get("sampling_rate", int)
    chunk_samples = fields.get("chunk_length", int) * sample_rate
    return FeatureConfig(
        sample_rate=sample_rate,
        num_mel_bins=fields.get("feature_size", int),
        n_fft=fields.get("n_fft", int),
        hop_length=fields.get("hop_length", int),
        n_samples=fields.get("n_samples", int, chunk_samples),
    )


def _text_ids(config: Fields, text: Fields, generation: Fields) -> TextIds:
    stop = generation.values.get("eos_token_id")
    stop_ids = tuple(stop) if isinstance(stop, list) else (generation.get("eos_token_id", int),)
    return TextIds(
        audio=config.get("audio_token_index", int),
        audio_bos=text.get("audio_bos_index", int),
        audio_eos=text.get("audio_eos_index", int),
        stop=stop_ids,
    )
