"""Plays the five cases of both stacks on the torch engine and on the engine under test, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from builders.parity.cases import Case, five_cases
from builders.parity.engines import Weights, compiled_engine, kernel_engine, parity_profile, precision_of, torch_engine
from builders.parity.play import Output, Player, Trace
from builders.parity.report import BOUNDS, Finding, compare
from builders.parity.traces import backbone_traces, prompt_lengths, prompt_states, speech_traces
from runtime.checkpoint.weights import load_weights
from runtime.engines.base import Engine
from runtime.engines.options import DENSE, DTYPES
from runtime.engines.trtllm.spec import EngineProfile
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.profiles import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.tensors import backbone_shapes, speech_shapes
from runtime.options import Options

TARGETS = ("cpu", "cuda", "tensorrt")
Say = Callable[[str], None]


class Comparison:
    """One run over a built folder.

    Args:
        options: of the folder.
        target: ``cpu`` compares the torch engine in the folder's dtype, ``cuda`` the kernels of the frames,
            ``tensorrt`` the compiled engines.
        reference_dtype: of the torch engine that they are compared with.
        graphs: see ``TrtLlmEngine``.
        device: of target cuda; on a CPU the kernels' twins run.

    Raises:
        BuildError: the checkpoint, a dtype or a precision does not suit.
    """

    def __init__(
        self,
        options: Options,
        target: str,
        reference_dtype: str = "float32",
        graphs: int = 0,
        device: torch.device | str = "cuda",
    ) -> None:
        if reference_dtype not in DTYPES:
            raise BuildError("reference-dtype", f"{reference_dtype!r} is unknown", f"use {', '.join(DTYPES)}")
        self._options, self._target, self._graphs = options, target, graphs
        self._device = torch.device(device)
        self._config = ModelConfig.read(options.path(options.model))
        self._weights = self._load(reference_dtype)

    @torch.inference_mode()
    def run(self, say: Say) -> list[Finding]:
        """All cases of both stacks, the backbone's first: its hidden states feed the speech head's traces."""
        projections = Projections(self._config, self._weights)
        lengths = prompt_lengths(self._options.engine.prefill_chunk)
        traces = backbone_traces(self._config, projections, lengths)
        findings, outputs = self._stack(BACKBONE_ENGINE, traces, say)
        states = [state.to(traces[0].rows.dtype) for state in prompt_states(outputs, traces)]
        spoken = speech_traces(self._config, projections, traces, states)
        return findings + self._stack(SPEECH_ENGINE, spoken, say)[0]

    def _stack(self, stack: str, traces: Sequence[Trace], say: Say) -> tuple[list[Finding], list[Output]]:
        """Findings of all cases, and the reference's outputs of all of them."""
        profile, cases = self._scripts(stack, traces)
        say(f"{stack}: torch engine, {traces[0].rows.dtype}")
        reference = Player(torch_engine(stack, self._config, profile, self._weights))
        expected = [reference.play(case, traces) for case in cases]
        say(f"{stack}: engine under test, target {self._target}")
        candidate, precision = self._candidate(stack, profile)
        if precision not in BOUNDS:
            raise BuildError("precision", f"{precision!r} has no bounds", f"known: {', '.join(BOUNDS)}")
        # The torch engine takes rows of its own dtype only.
        rounded = [replace(trace, rows=trace.rows.to(getattr(torch, profile.dtype))) for trace in traces]
        found = [Player(candidate).play(case, rounded) for case in cases]
        rows = zip(cases, expected, found, strict=True)
        findings = [compare(stack, case.name, a, b, BOUNDS[precision]) for case, a, b in rows]
        return findings, [output for outputs in expected for output in outputs]

    def _scripts(self, stack: str, traces: Sequence[Trace]) -> tuple[EngineProfile, tuple[Case, ...]]:
        positions = max(len(trace.rows) for trace in traces)
        profile = parity_profile(stack, self._config, self._options, positions)
        try:
            limits = profile.max_input_len, profile.shape.max_num_tokens
            return profile, five_cases([trace.prompt for trace in traces], *limits)
        except ValueError as error:
            raise BuildError("prefill_chunk", str(error), "build with a larger one") from None

    def _candidate(self, stack: str, profile: EngineProfile) -> tuple[Engine, str]:
        """The engine under test and its precision."""
        folder = self._options.folder
        if self._target == "cuda":
            linear = self._options.engine.linear
            weights = self._load(profile.dtype, self._device)
            engine = kernel_engine(stack, self._config, profile, weights, linear)
            return engine, profile.dtype if linear == DENSE else linear
        if self._target != "cpu":
            return compiled_engine(stack, folder, profile, self._graphs), precision_of(folder, stack, profile)
        return torch_engine(stack, self._config, profile, self._load(profile.dtype)), profile.dtype

    def _load(self, dtype: str, device: torch.device | str = "cpu") -> Weights:
        shapes = backbone_shapes(self._config) | speech_shapes(self._config)
        return load_weights(self._config.directory, shapes, getattr(torch, dtype), device)
