"""The log-mel extractor of a checkpoint: sizes, and what of ``preprocessor_config.json`` can be computed here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import exists

FEATURES_FILE = "preprocessor_config.json"
PROCESSOR_FILE, EXTRACTOR = "processor_config.json", "feature_extractor"  # where transformers 5 puts it
LARGEST_SIZE = 1 << 24  # far beyond any model of this kind
LOWEST_RATE, HIGHEST_RATE = 16_000, 192_000  # the filters reach up to 8 kHz
FRAME_HZ = 100  # of the log-mel: the encoder halves it twice to the 25 Hz of speech codes
# Values that change nothing in the log-mel of ``runtime.frontend.mel``.
NEUTRAL = {
    "feature_extractor_type": ("WhisperFeatureExtractor",),
    "dither": (0.0, None),
    "do_normalize": (False, None),
    "padding_value": (0.0,),
}


def check_sizes(config: object, names: tuple[str, ...], most: int = LARGEST_SIZE) -> None:
    """Raises ValueError for a size that is none, or larger than any model's."""
    for name in names:
        if not 1 <= getattr(config, name) <= most:
            raise ValueError(f"{name}: {getattr(config, name)} is not between 1 and {most}")


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """The log-mel extractor. Times in samples of ``sample_rate``."""

    sample_rate: int
    num_mel_bins: int
    n_fft: int
    hop_length: int
    n_samples: int

    def __post_init__(self) -> None:
        check_sizes(self, ("num_mel_bins", "n_fft", "hop_length"))
        if not LOWEST_RATE <= self.sample_rate <= HIGHEST_RATE:
            raise ValueError(f"sampling_rate: {self.sample_rate} is not between {LOWEST_RATE} and {HIGHEST_RATE}")
        if self.sample_rate != FRAME_HZ * self.hop_length:
            raise ValueError(f"hop_length: {self.hop_length} does not make {FRAME_HZ} frames of {self.sample_rate} Hz")
        if self.n_fft % 2 or self.n_fft < self.hop_length or self.n_samples < self.n_fft:
            raise ValueError(f"n_fft: {self.n_fft} is odd, below the hop or above the longest clip")

    @property
    def seconds(self) -> Fraction:
        """Longest audio."""
        return Fraction(self.n_samples, self.sample_rate)


def features_of(directory: Path) -> Fields:
    """What a checkpoint says of its extractor, in a file of its own or in its processor's.

    Raises:
        BuildError: there is neither, or it cannot be read.
    """
    if not exists(directory / FEATURES_FILE) and exists(directory / PROCESSOR_FILE):
        processor = Fields.read(directory / PROCESSOR_FILE)
        if EXTRACTOR in processor.values:
            return processor.section(EXTRACTOR)
    return Fields.read(directory / FEATURES_FILE)


def read_features(fields: Fields, num_mel_bins: int) -> FeatureConfig:
    """The extractor whose spectra the encoder takes.

    Raises:
        BuildError, ValueError: a key is missing, ill-typed, or asks for something not implemented.
    """
    for key, values in NEUTRAL.items():
        fields.refuse(key, values)
    sample_rate, seconds = fields.get("sampling_rate", int), fields.get("chunk_length", int)
    fields.refuse("feature_size", (num_mel_bins,))  # else the encoder takes none of its spectra
    fields.refuse("n_samples", (seconds * sample_rate, None))
    return FeatureConfig(
        sample_rate=sample_rate,
        num_mel_bins=fields.get("feature_size", int),
        n_fft=fields.get("n_fft", int),
        hop_length=fields.get("hop_length", int),
        n_samples=seconds * sample_rate,
    )
