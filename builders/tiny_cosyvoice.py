"""A tiny CosyVoice3 directory with random weights, in the released layout. Its sound is noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from builders.voices import PREFERRED, VOICES_FILE
from runtime.token2wav.config import YAML_FILE, Token2WavConfig
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.vocoder.net import Vocoder

# What is not a size is as released.
DOCUMENT = """\
sample_rate: 24000
spk_embed_dim: 192
token_frame_rate: 25
token_mel_ratio: 2
chunk_size: 25 # tokens

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    vocab_size: 6561
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: 3
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        channels: 96
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        cfm_params: !new:omegaconf.DictConfig
            content:
                inference_cfg_rate: 0.7
        estimator: !new:cosyvoice.flow.DiT.dit.DiT
            dim: {dim}
            depth: {depth}
            heads: {heads}
            dim_head: {head_dim}
            ff_mult: 2
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>

hift: !new:cosyvoice.hifigan.generator.CausalHiFTGenerator
    in_channels: 80
    base_channels: {base_channels}
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.CausalConvRNNF0Predictor
        cond_channels: {pitch_channels}
"""
ROPE_BASE = 10000.0
SPEAKER_NORM = 12.0  # of a real speaker vector, about
PITCH_HZ = 150.0  # random nets would be voiceless: their pitch output is lifted into the range of a voice


@dataclass(frozen=True, slots=True)
class NetSizes:
    """Widths and depths; the defaults are those of the golden set."""

    dim: int = 64
    depth: int = 3
    heads: int = 4
    head_dim: int = 16
    base_channels: int = 64
    pitch_channels: int = 64


def document(sizes: NetSizes = NetSizes()) -> str:
    """``cosyvoice3.yaml`` of these sizes, in the released style."""
    return DOCUMENT.format(**asdict(sizes))


def write_tiny_cosyvoice(directory: Path, sizes: NetSizes = NetSizes(), seed: int = 0) -> None:
    """Writes yaml, flow.pt, hift.pt and spk2info.pt; the same sizes and seed give the same tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / YAML_FILE).write_text(document(sizes), "utf-8")
    config = Token2WavConfig.read(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow, vocoder = Flow(config.flow), Vocoder(config.hift)
        voices = {name: torch.randn(1, config.flow.speaker_dim) for name in (PREFERRED, "other")}
    half = config.flow.head_dim // 2
    flow.estimator.rotary_embed.inv_freq.copy_(ROPE_BASE ** (-torch.arange(half) / half))  # type: ignore[operator]
    nn.init.constant_(vocoder.f0_predictor.classifier.bias, PITCH_HZ)
    torch.save(flow.state_dict(), directory / "flow.pt")
    torch.save(_unfold_weight_norm(vocoder), directory / "hift.pt")
    table = {name: {"embedding": SPEAKER_NORM * v / v.norm()} for name, v in voices.items()}
    torch.save(table, directory / VOICES_FILE)


def _unfold_weight_norm(vocoder: nn.Module) -> dict[str, torch.Tensor]:
    """The released file keeps every convolution but the source ones as gain and direction."""
    state = {}
    for name, tensor in vocoder.state_dict().items():
        if tensor.dim() == 3 and not name.startswith("source_downs"):
            stem = name.removesuffix("weight") + "parametrizations.weight.original"
            state[stem + "0"] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[stem + "1"] = tensor
        else:
            state[name] = tensor
    return state
