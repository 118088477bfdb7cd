"""Sizes and special ids of a Fun-Audio-Chat checkpoint, read from its own files.

Nothing here is a default of the released model: a size that the files do not state is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.checkpoint.decoder import MOST_LAYERS, DecoderConfig
from runtime.checkpoint.features import LARGEST_SIZE, FeatureConfig, check_sizes, features_of, read_features
from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import shown
from runtime.checkpoint.keys import check_keys
from runtime.errors import BuildError
from runtime.scheduling.caches import CacheSpec

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"


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
        check_sizes(self, ("num_mel_bins", "d_model", "num_heads", "ffn_size", "n_window", "output_dim", "group_size"))
        check_sizes(self, ("num_layers",), MOST_LAYERS)
        if self.d_model % 2 or self.d_model < 4:
            raise ValueError(f"d_model: {self.d_model} gives no pairs of sines and cosines")
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


FRAME_S = 0.2  # seconds of speech in one frame: five codes at 25 Hz


@dataclass(frozen=True, slots=True)
class SpeechIds:
    """Ids of the speech codebook. Codes below ``first_control`` are sound, the rest control."""

    codebook_size: int
    bos: int
    eos: int
    pad: int
    group_size: int

    def __post_init__(self) -> None:
        check_sizes(self, ("codebook_size", "group_size"))
        if len({self.bos, self.eos, self.pad}) < 3 or not self.first_control:
            raise ValueError(f"bos, eos, pad: {self.bos}, {self.eos}, {self.pad} leave no codes for sound apart")

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
        config = Fields.read(directory / CONFIG_FILE)
        check_keys(config)
        text, audio = config.section("text_config"), config.section("audio_config")
        features = features_of(directory)
        with _of_file(CONFIG_FILE):
            backbone = DecoderConfig.read(text, text.get("vocab_size", int))
            speech_ids = _speech_ids(audio)
            speech_head = DecoderConfig.read(audio.section("crq_transformer_config"), speech_ids.codebook_size)
            encoder = _encoder(audio, speech_ids.group_size)
        with _of_file(features.path.name):
            extractor = read_features(features, encoder.num_mel_bins)
        text_ids = _text_ids(config, text, Fields.read(directory / GENERATION_FILE), backbone.output_size)
        return cls(directory, backbone, speech_head, encoder, extractor, text_ids, speech_ids)


@contextmanager
def _of_file(name: str) -> Iterator[None]:
    """Says in which file a size stands that the classes above do not take."""
    try:
        yield
    except ValueError as error:
        raise BuildError(name, str(error), "check the checkpoint's version") from None


def _speech_ids(audio: Fields) -> SpeechIds:
    codes = audio.get("codebook_size", int)
    return SpeechIds(
        codebook_size=codes,
        bos=_id(audio, "bos_token_id", codes),
        eos=_id(audio, "eos_token_id", codes),
        pad=_id(audio, "pad_token_id", codes),
        group_size=audio.get("group_size", int),
    )


def _encoder(audio: Fields, group_size: int) -> EncoderConfig:
    n_window, positions = audio.get("n_window", int), audio.get("max_source_positions", int, LARGEST_SIZE)
    if n_window > positions:
        raise audio.error("n_window", f"is {n_window}", f"at most max_source_positions, {positions}, is possible")
    return EncoderConfig(
        num_mel_bins=audio.get("num_mel_bins", int),
        d_model=audio.get("d_model", int),
        num_layers=audio.get("encoder_layers", int),
        num_heads=audio.get("encoder_attention_heads", int),
        ffn_size=audio.get("encoder_ffn_dim", int),
        n_window=n_window,
        output_dim=audio.get("output_dim", int),
        group_size=group_size,
    )


def _text_ids(config: Fields, text: Fields, generation: Fields, vocabulary: int) -> TextIds:
    stop = generation.values.get("eos_token_id")
    many = {str(i): value for i, value in enumerate(stop)} if isinstance(stop, list) else {}
    listed = Fields(generation.path, many, "eos_token_id.")
    stops = [_id(listed, key, vocabulary) for key in many] or [_id(generation, "eos_token_id", vocabulary)]
    return TextIds(
        audio=_id(config, "audio_token_index", vocabulary),
        audio_bos=_id(text, "audio_bos_index", vocabulary),
        audio_eos=_id(text, "audio_eos_index", vocabulary),
        stop=tuple(stops),
    )


def _id(fields: Fields, key: str, vocabulary: int) -> int:
    value: int = fields.get(key, int)
    if not 0 <= value < vocabulary:
        raise fields.error(key, f"is {shown(value)}", f"an id below {vocabulary} is needed")
    return value


def cache_specs(config: ModelConfig) -> tuple[CacheSpec, CacheSpec]:
    """Of the backbone, one position a text step, and of the speech head, a group of them."""
    group = config.speech_ids.group_size
    return CacheSpec("backbone", "backbone"), CacheSpec("speech", "speech head", group, only_speaking=True)
