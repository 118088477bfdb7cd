"""What is measured: a model of the released sizes, or a tiny one that only shows that the script runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.checkpoint.decoder import DecoderConfig
from runtime.checkpoint.features import FeatureConfig
from runtime.families.fun_audio_chat.config import EncoderConfig, ModelConfig, SpeechIds, TextIds
from runtime.token2wav.config import FlowConfig, HiftConfig

# Special ids as released; a tiny vocabulary ends with them.
CONTROL = 4
SAMPLE_RATE = 16000


@dataclass(frozen=True, slots=True)
class BenchSizes:
    """One size of everything. ``streams``: batch sizes; ``question``: prompt positions of a 3 s question.

    ``together``: calls that are queued as one timing: the device is drained once in so many. ``compared``: rows of
    the comparisons of kernels; ``largest_call``: streams and blocks of the flow there.
    """

    name: str
    model: ModelConfig
    flow: FlowConfig
    hift: HiftConfig
    streams: tuple[int, ...]
    sustained: tuple[int, ...]
    positions: int
    question: int
    prefill: int
    context: int
    runs: int
    together: int
    compared: tuple[int, int, int, int]
    largest_call: tuple[int, int]


def _model(backbone: DecoderConfig, speech: DecoderConfig, encoder: EncoderConfig, codes: int) -> ModelConfig:
    first = codes - CONTROL
    top = backbone.output_size
    return ModelConfig(
        directory=Path("."),
        backbone=backbone,
        speech_head=speech,
        encoder=encoder,
        features=FeatureConfig(SAMPLE_RATE, encoder.num_mel_bins, 400, 160, 300 * SAMPLE_RATE),
        text_ids=TextIds(audio=top - 4, audio_bos=top - 3, audio_eos=top - 2, stop=(top - 1,)),
        # The end of speech is no code that could be drawn: random weights would fall silent.
        speech_ids=SpeechIds(codes, bos=first, eos=codes, pad=first + 2, group_size=5),
    )


def _hift(base: int, pitch: int) -> HiftConfig:
    dilations = ((1, 3, 5),) * 3
    return HiftConfig(
        sample_rate=24000, mel_bins=80, base_channels=base, harmonics=9, nsf_alpha=0.1, nsf_sigma=0.003,
        voiced_hz=10, upsample_rates=(8, 5, 3), upsample_kernels=(16, 11, 7), n_fft=16, hop=4,
        resblock_kernels=(3, 7, 11), resblock_dilations=dilations, source_kernels=(7, 7, 11),
        source_dilations=dilations, lrelu_slope=0.1, audio_limit=0.99, pitch_channels=pitch,
    )  # fmt: skip


def _flow(dim: int, depth: int, heads: int, head_dim: int, lookahead_channels: int) -> FlowConfig:
    return FlowConfig(
        vocab_size=6561, mel_bins=80, speaker_dim=192, lookahead=3, lookahead_channels=lookahead_channels,
        frames_per_token=2, dim=dim, depth=depth, heads=heads, head_dim=head_dim, ff_mult=2, block_frames=50,
        guidance=0.7,
    )  # fmt: skip


def full() -> BenchSizes:
    """The released sizes (reference, section 1, and the CosyVoice3 reference, sections 1.3 to 1.5)."""
    backbone = DecoderConfig(4096, 36, 32, 8, 128, 12288, 5e6, 1e-6, 262144, 151936)
    speech = DecoderConfig(1024, 28, 16, 8, 128, 3072, 1e6, 1e-6, 32768, 6565)
    encoder = EncoderConfig(128, 1280, 32, 20, 5120, 100, 4096, 5)
    return BenchSizes(
        "full", _model(backbone, speech, encoder, 6565), _flow(1024, 22, 16, 64, 1024), _hift(512, 512),
        streams=(1, 8, 32, 64, 128), sustained=(32, 64, 96, 128), positions=1024, question=43,
        prefill=512, context=256, runs=30, together=16, compared=(1, 3, 24, 64), largest_call=(8, 4),
    )  # fmt: skip


def tiny() -> BenchSizes:
    """Runs on a CPU in seconds; its numbers mean nothing."""
    backbone = DecoderConfig(64, 2, 4, 2, 32, 96, 5e6, 1e-6, 4096, 320)
    speech = DecoderConfig(48, 2, 4, 2, 16, 64, 1e6, 1e-6, 4096, 6565)
    encoder = EncoderConfig(128, 32, 1, 2, 64, 100, 64, 5)
    return BenchSizes(
        "tiny", _model(backbone, speech, encoder, 6565), _flow(32, 2, 2, 16, 32), _hift(32, 32),
        streams=(1, 3), sustained=(2,), positions=128, question=20, prefill=32, context=40, runs=2, together=2,
        compared=(1, 2, 3, 4), largest_call=(1, 2),
    )  # fmt: skip
