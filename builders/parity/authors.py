"""``python -m builders.parity.authors``: our frames against runs of the authors' code on the same checkpoint.

Every recorded run is generated again, on the device and with the precision that are asked for, and watched
from inside: final hidden states, text and code logits of every step for as long as the ids agree, and the
first id that does not. They start from the authors' prompt and audio rows; our own prompt of the same
question and our encoder's rows are compared beside. The last line of the output is JSON.

Runs of the released model: ``builders/parity/upstream.py`` makes them in the authors' own environment.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from builders.parity.questions import Asked, FrontEnd, ask, same
from builders.parity.report import BOUNDS
from builders.parity.vectors import Recorded, read_vectors
from client.protocol.command_line import run_command
from kernels.linear import Matrix
from runtime.engines.options import DTYPES, LINEARS, EngineOptions
from runtime.errors import ServeError
from runtime.families.fun_audio_chat.build import recorded_loop
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.recorded import RecordedModel
from runtime.families.fun_audio_chat.state import SlotState
from runtime.frames.loop import FrameLoop
from runtime.graphs.executor import EagerExecutor, gpu_device

SPARE_POSITIONS = 8


class Tap:
    """A matrix that keeps what went through it."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self.inputs: list[np.ndarray] = []
        self.outputs: list[np.ndarray] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = self._matrix(x)
        self.inputs.append(x[0].float().cpu().numpy())
        self.outputs.append(out[0].float().cpu().numpy().copy())  # choosing from them may change them
        return out


@dataclass(frozen=True, slots=True)
class Agreement:
    """One run: largest errors as fractions of the largest value, ids that agree, and where they stop to.

    ``steps`` were compared inside. ``divergence``: None, or ``text`` or ``code`` and its number.
    """

    case: str
    asked: Asked | None
    steps: int
    hidden_error: float
    logits_error: float
    code_logits_error: float | None
    text_ids: str
    codes: str
    divergence: str | None
    bound: float

    @property
    def passed(self) -> bool:
        """Within the bound of the precision, and in float32 without a different id."""
        errors = [self.hidden_error, self.logits_error, self.code_logits_error or 0.0]
        exact = self.bound > BOUNDS["float32"].hidden or self.divergence is None
        within = all(error <= self.bound for error in errors)  # NaN is not
        return bool(within and exact and (self.asked is None or self.asked.passed))


def compare_run(run: Recorded, config: ModelConfig, options: EngineOptions, front: FrontEnd) -> Agreement:
    """Asks a run's question and generates its answer again, and compares."""
    device = front.device
    loop = recorded_loop(config, options, device, executor=EagerExecutor(device))
    assert isinstance(loop.model, RecordedModel)
    steps = loop.model.steps
    text, codes = Tap(steps.weights.text_head), Tap(steps.weights.speech_head[-1])
    steps.weights = replace(steps.weights, text_head=text, speech_head=(*steps.weights.speech_head[:-1], codes))
    texts, spoken, raw = _decode(loop, steps.state, run, config, text)
    divergence, agreed = _divergence(run, texts, spoken, config.speech_ids.group_size)
    # What is inside a step depends on the ids before it: the step that diverges still counts.
    count = min(agreed + 1, len(run.hidden), len(text.inputs))
    return Agreement(
        case=run.name,
        asked=None if run.question is None else ask(front, run.question, run.prompt),
        steps=count,
        hidden_error=_error(text.inputs[:count], run.hidden[:count]),
        logits_error=_error(_picked(text.outputs[:count], run.logits_ids), run.logits[:count]),
        code_logits_error=_code_error(codes, run, raw, count),
        text_ids=f"{same(texts, run.text_ids)}/{len(run.text_ids)}",
        codes=f"{same(spoken, run.codes)}/{len(run.codes)}",
        divergence=divergence,
        bound=BOUNDS[options.dtype if options.linear == "dense" else options.linear].hidden,
    )


def _decode(
    loop: FrameLoop, state: SlotState, run: Recorded, config: ModelConfig, text: Tap
) -> tuple[list[int], list[int], list[int]]:
    """Text ids, emitted codes, and all codes as they were chosen."""
    stream = run.stream(config)
    loop.add(stream)
    texts: list[int] = []
    codes: list[int] = []
    raw: list[int] = []
    while loop.scheduler.live or loop.scheduler.waiting:
        steps = len(text.inputs)
        found = loop.step()
        if len(text.inputs) > steps:
            raw += state.codes[0].tolist()
        for item in found:
            texts += item.frame.text_ids
            codes += item.frame.codes
    return texts, codes, raw


def _divergence(run: Recorded, texts: Sequence[int], codes: Sequence[int], group: int) -> tuple[str | None, int]:
    """What differs first, and how many steps agree before."""
    text, code = same(texts, run.text_ids), same(codes, run.codes)
    if text == len(run.text_ids) == len(texts) and code == len(run.codes) == len(codes):
        return None, text
    if code < len(run.codes) and code // group < text:
        return f"code {code}", min(text, code // group)
    return f"text {text}", text


def _error(found: Sequence[np.ndarray], expected: np.ndarray) -> float:
    return float(np.abs(np.stack(found) - expected).max() / np.abs(expected).max())


def _picked(logits: Sequence[np.ndarray], ids: np.ndarray) -> list[np.ndarray]:
    return [row[chosen] for row, chosen in zip(logits, ids, strict=False)]


def _code_error(codes: Tap, run: Recorded, raw: Sequence[int], count: int) -> float | None:
    """Up to and with the first code that differs: what comes after it has other inputs."""
    if run.code_logits is None or run.code_logits_ids is None or run.raw_codes is None:
        return None
    width = run.code_logits.shape[-1]
    ids, logits = run.code_logits_ids.reshape(-1, width), run.code_logits.reshape(-1, width)
    expected = run.raw_codes.ravel().tolist()
    rows = min(same(raw, expected) + 1, count * run.raw_codes.shape[1], len(logits))
    return _error(_picked(codes.outputs[:rows], ids), logits[:rows])


def table(found: Sequence[Agreement]) -> str:
    """For people."""
    names = ("prompt", "encoder", "steps", "hidden", "logits", "codes", "text ids", "codes")
    lines = [f"{'case':24} {' '.join(f'{name:>9}' for name in names)}  first other"]
    for a in found:
        prompt, rows = ("-", None) if a.asked is None else (a.asked.prompt, a.asked.rows_error)
        errors = [_shown(error) for error in (a.hidden_error, a.logits_error, a.code_logits_error)]
        cells = (prompt, _shown(rows), str(a.steps), *errors, a.text_ids, a.codes)
        row = " ".join(f"{cell:>9}" for cell in cells)
        lines.append(f"{a.case:24} {row}  {a.divergence or 'none'}  {'pass' if a.passed else 'FAIL'}")
    return "\n".join(lines)


def _shown(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m builders.parity.authors", description=__doc__)
    made.add_argument("--model", type=Path, required=True, help="Fun-Audio-Chat directory")
    made.add_argument("--vectors", type=Path, required=True, help="folder of recorded runs")
    made.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    made.add_argument("--dtype", default="float32", choices=DTYPES)
    made.add_argument("--linear", default="dense", choices=LINEARS, help="int8 and fp8: see the build's option")
    made.add_argument("--no-questions", action="store_true", help="leave out our prompt and our encoder's rows")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when every run passes, 1 otherwise."""
    given = parser().parse_args(arguments)
    try:
        device = gpu_device(0) if given.device == "cuda" else torch.device(given.device)
        config = ModelConfig.read(given.model)
        runs = read_vectors(given.vectors, config, not given.no_questions)
        front = FrontEnd(config, device)
        found = [compare_run(run, config, _options(run, given), front) for run in runs]
    except ServeError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(found))
    passed = all(agreement.passed for agreement in found)
    records = [asdict(agreement) | {"passed": agreement.passed} for agreement in found]
    print(
        json.dumps(
            {"device": given.device, "dtype": given.dtype, "linear": given.linear, "passed": passed, "runs": records}
        )
    )
    return 0 if passed else 1


def _options(run: Recorded, given: argparse.Namespace) -> EngineOptions:
    positions = len(run.prompt) + run.params.max_tokens + SPARE_POSITIONS
    # ``device`` says which loop the server takes; here it is always the one that runs on both.
    return EngineOptions(
        max_streams=1, max_positions=positions, kv_positions=positions, dtype=given.dtype,
        device="cuda", linear=given.linear,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_command(main))
