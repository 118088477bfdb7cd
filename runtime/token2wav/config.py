"""Sizes of a CosyVoice3 flow and vocoder, from ``cosyvoice3.yaml`` read as data and never executed."""

from __future__ import annotations

import ast
import operator
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import yaml

from runtime.errors import BuildError

YAML_FILE = "cosyvoice3.yaml"
EULER_STEPS = 10  # fixed in the authors' inference code, not in the file


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

    @property
    def token_samples(self) -> int:
        """Samples of one speech token."""
        return self.flow.frames_per_token * self.hift.frame_samples

    @classmethod
    def read(cls, directory: Path) -> Token2WavConfig:
        """Raises BuildError when the file or one of its keys is missing or ill-typed."""
        document = Document.read(directory / YAML_FILE)
        return cls(directory, _flow(document), _hift(document), document.integer("token_frame_rate"))


class Document:
    """A YAML document whose object tags are inert: ``!new:`` and the like give their plain arguments."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self.name, self.values = name, values

    @classmethod
    def read(cls, path: Path) -> Document:
        """Raises BuildError when there is no such file or it is no mapping."""
        try:
            values = yaml.load(path.read_text("utf-8"), Loader=_InertLoader)
        except FileNotFoundError:
            raise BuildError(
                path.name, f"not found in {path.parent}", "give the downloaded CosyVoice3 directory"
            ) from None
        except yaml.YAMLError as error:
            raise BuildError(path.name, f"is not YAML ({str(error)[:80]})", "download the file again") from None
        if not isinstance(values, dict):
            raise BuildError(path.name, "is not a mapping", "download the file again")
        return cls(path.name, values)

    def get(self, path: str) -> Any:
        """The value at a dotted path, references resolved."""
        value: Any = self.values
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise BuildError(f"{self.name}: {path}", "is missing", "check the checkpoint's version")
            value = value[key]
        return self._resolve(path, value)

    def integer(self, path: str) -> int:
        """A whole number at a dotted path."""
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BuildError(f"{self.name}: {path}", f"is {value!r}", "a whole number is needed")
        return value

    def number(self, path: str) -> float:
        """A number at a dotted path."""
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BuildError(f"{self.name}: {path}", f"is {value!r}", "a number is needed")
        return float(value)

    def integers(self, path: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.get(path)
        if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
            raise BuildError(f"{self.name}: {path}", f"is {value!r}", "a list of whole numbers is needed")
        return tuple(value)

    def _resolve(self, path: str, value: Any) -> Any:
        if not isinstance(value, Reference):
            return value
        try:
            return value.evaluate(self.get)
        except (SyntaxError, TypeError, ValueError, KeyError, ZeroDivisionError, RecursionError):
            raise BuildError(f"{self.name}: {path}", f"is {value.text!r}", "only arithmetic is understood") from None


class Reference:
    """``!ref``: arithmetic over ``<names>`` of the document."""

    _OPERATORS: ClassVar[dict[type, Any]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
    }

    def __init__(self, text: str) -> None:
        self.text = text

    def evaluate(self, get: Any) -> Any:
        """The value; names are looked up with ``get``."""
        names = re.findall(r"<([\w.]+)>", self.text)
        expression = re.sub(r"<[\w.]+>", "_", self.text)
        return self._value(ast.parse(expression, mode="eval").body, iter([get(name) for name in names]))

    def _value(self, node: ast.expr, names: Any) -> Any:
        if isinstance(node, ast.Name) and node.id == "_":
            return next(names)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.BinOp):
            left = self._value(node.left, names)
            return self._OPERATORS[type(node.op)](left, self._value(node.right, names))
        raise ValueError(self.text)


class _InertLoader(yaml.SafeLoader):
    """Knows no tag that could make an object."""


def _inert(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_InertLoader.add_multi_constructor("!", _inert)
_InertLoader.add_multi_constructor("tag:yaml.org,2002:python/", _inert)
_InertLoader.add_constructor("!ref", lambda loader, node: Reference(str(loader.construct_scalar(node))))


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
    def nested(path: str) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(row) for row in document.get(path))

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
        resblock_dilations=nested("hift.resblock_dilation_sizes"),
        source_kernels=document.integers("hift.source_resblock_kernel_sizes"),
        source_dilations=nested("hift.source_resblock_dilation_sizes"),
        lrelu_slope=document.number("hift.lrelu_slope"),
        audio_limit=document.number("hift.audio_limit"),
        pitch_channels=document.integer("hift.f0_predictor.cond_channels"),
    )
