"""Sizes of a CosyVoice3 flow and vocoder, from ``cosyvoice3.yaml`` read as data and never executed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.checkpoint.features import LARGEST_SIZE
from runtime.checkpoint.files import shown
from runtime.errors import BuildError

if TYPE_CHECKING:  # the sizes are used where no yaml is read, and no library for it installed
    from runtime.token2wav.yaml_data import Document

YAML_FILE = "cosyvoice3.yaml"
# Fixed in the authors' code, not in the file:
EULER_STEPS = 10
POSITION_GROUPS, POSITION_KERNEL = 16, 31  # of the DiT's two position convolutions
MOST_LAYERS = 1024  # without a bound a slip of a number would fill the memory with layers
SMOOTHING_KERNEL = 3  # second convolution of the lookahead layer, causal


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Speech tokens to mel. ``block_frames``: frames that attend to each other while streaming."""

    vocab_size: int
    mel_bins: int
    speaker_dim: int
    lookahead: int
    lookahead_channels: int
    frames_per_token: int
    dim: int
    depth: int
    heads: int
    head_dim: int
    ff_mult: int
    block_frames: int
    guidance: float

    def __post_init__(self) -> None:
        _check_positive(self)
        _check_multiple(self, "dim", POSITION_GROUPS)
        _check_multiple(self, "head_dim", 2)  # rotated in pairs
        _check_multiple(self, "block_frames", self.frames_per_token)

    @property
    def inner(self) -> int:
        """Width of queries, keys and values."""
        return self.heads * self.head_dim


@dataclass(frozen=True, slots=True)
class HiftConfig:
    """Mel to sound. Rates in Hz, kernel sizes and dilations as in the file."""

    sample_rate: int
    mel_bins: int
    base_channels: int
    harmonics: int
    nsf_alpha: float
    nsf_sigma: float
    voiced_hz: float
    upsample_rates: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    n_fft: int
    hop: int
    resblock_kernels: tuple[int, ...]
    resblock_dilations: tuple[tuple[int, ...], ...]
    source_kernels: tuple[int, ...]
    source_dilations: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    pitch_channels: int

    def __post_init__(self) -> None:
        _check_positive(self)
        stages = len(self.upsample_rates)
        for name in ("upsample_kernels", "source_kernels", "source_dilations"):
            _check_length(self, name, stages)
        _check_length(self, "resblock_dilations", len(self.resblock_kernels))
        _check_multiple(self, "base_channels", 2**stages)
        _check_multiple(self, "n_fft", 2 * self.hop)

    @property
    def frame_samples(self) -> int:
        """Samples of one mel frame."""
        return prod(self.upsample_rates) * self.hop


@dataclass(frozen=True, slots=True)
class Token2WavConfig:
    """Both nets and the rates that join them."""

    directory: Path
    flow: FlowConfig
    hift: HiftConfig
    token_hz: int

    def __post_init__(self) -> None:
        if self.flow.mel_bins != self.hift.mel_bins:
            _refuse(self, "mel_bins", f"{self.flow.mel_bins} and {self.hift.mel_bins}", "flow and vocoder must agree")
        if self.token_hz * self.token_samples != self.hift.sample_rate:
            problem = f"is {self.token_hz}: {self.token_samples} samples each make no {self.hift.sample_rate} Hz"
            raise BuildError("Token2WavConfig.token_hz", problem, "check the rates of the yaml")

    @property
    def token_samples(self) -> int:
        """Samples of one speech token."""
        return self.flow.frames_per_token * self.hift.frame_samples

    @classmethod
    def read(cls, directory: Path) -> Token2WavConfig:
        """Raises BuildError when the file or one of its keys is missing or ill-typed."""
        from runtime.token2wav.yaml_data import Document

        document = Document.read(directory / YAML_FILE)
        return cls(directory, _flow(document), _hift(document), document.integer("token_frame_rate"))


def _refuse(config: object, name: str, value: object, remedy: str) -> None:
    raise BuildError(f"{type(config).__name__}.{name}", f"is {value}", remedy)


def _check_positive(config: Any) -> None:
    """Every number, and every number of every list, is above zero and no slip."""
    for field in fields(config):
        value = getattr(config, field.name)
        rows = value if isinstance(value, tuple) else (value,)
        numbers = [n for row in rows for n in (row if isinstance(row, tuple) else (row,))]
        most = MOST_LAYERS if field.name == "depth" else LARGEST_SIZE
        if not numbers or not 0 < min(numbers) <= max(numbers) <= most:
            _refuse(config, field.name, shown(value), f"positive numbers up to {most} are needed")


def _check_multiple(config: object, name: str, of: int) -> None:
    if getattr(config, name) % of:
        _refuse(config, name, getattr(config, name), f"a multiple of {of} is needed")


def _check_length(config: object, name: str, length: int) -> None:
    if len(getattr(config, name)) != length:
        _refuse(config, name, getattr(config, name), f"{length} entries are needed")


def _flow(document: Document) -> FlowConfig:
    estimator = "flow.decoder.estimator"
    return FlowConfig(
        vocab_size=document.integer("flow.vocab_size"),
        mel_bins=document.integer("flow.output_size"),
        speaker_dim=document.integer("flow.spk_embed_dim"),
        lookahead=document.integer("flow.pre_lookahead_len"),
        lookahead_channels=document.integer("flow.pre_lookahead_layer.channels"),
        frames_per_token=document.integer("flow.token_mel_ratio"),
        dim=document.integer(f"{estimator}.dim"),
        depth=document.integer(f"{estimator}.depth"),
        heads=document.integer(f"{estimator}.heads"),
        head_dim=document.integer(f"{estimator}.dim_head"),
        ff_mult=document.integer(f"{estimator}.ff_mult"),
        block_frames=document.integer(f"{estimator}.static_chunk_size"),
        guidance=document.number("flow.decoder.cfm_params.content.inference_cfg_rate"),
    )


def _hift(document: Document) -> HiftConfig:
    return HiftConfig(
        sample_rate=document.integer("hift.sampling_rate"),
        mel_bins=document.integer("hift.in_channels"),
        base_channels=document.integer("hift.base_channels"),
        harmonics=document.integer("hift.nb_harmonics") + 1,  # the fundamental counts
        nsf_alpha=document.number("hift.nsf_alpha"),
        nsf_sigma=document.number("hift.nsf_sigma"),
        voiced_hz=document.number("hift.nsf_voiced_threshold"),
        upsample_rates=document.integers("hift.upsample_rates"),
        upsample_kernels=document.integers("hift.upsample_kernel_sizes"),
        n_fft=document.integer("hift.istft_params.n_fft"),
        hop=document.integer("hift.istft_params.hop_len"),
        resblock_kernels=document.integers("hift.resblock_kernel_sizes"),
        resblock_dilations=document.integer_lists("hift.resblock_dilation_sizes"),
        source_kernels=document.integers("hift.source_resblock_kernel_sizes"),
        source_dilations=document.integer_lists("hift.source_resblock_dilation_sizes"),
        lrelu_slope=document.number("hift.lrelu_slope"),
        audio_limit=document.number("hift.audio_limit"),
        pitch_channels=document.integer("hift.f0_predictor.cond_channels"),
    )
