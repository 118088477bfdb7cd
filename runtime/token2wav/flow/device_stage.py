"""The flow stage on a device: all Euler steps of a call as one recorded piece of work, caches never leave it.

Sizes are rounded up so that recordings repeat: rows to powers of two, frames to whole blocks. What is
rounded up is masked, and writes to spare rows of the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.flow import FlowPages
from runtime.graphs.executor import Executor, Work
from runtime.graphs.recorded_sizes import power_of_two, powers_down
from runtime.token2wav.chunks import Arrays
from runtime.token2wav.flow.device_cache import DeviceFlowCache
from runtime.token2wav.flow.device_step import DeviceStep
from runtime.token2wav.flow.net import FlowFront
from runtime.token2wav.flow.stage import CALL_BLOCKS, FlowStage
from runtime.token2wav.flow.state import Piece
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise

WIDE = torch.complex128  # the widest type that torch copies


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple


def wide(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks [depth, blocks, ...] as [depth, blocks, elements], of 16 bytes each where a block is whole ones.

    Copies by index go element by element: with 16 bit numbers that is an eighth of the launches' work. Nothing
    computes with the wide elements.
    """
    lines = blocks.flatten(2)
    whole = lines.shape[2] * lines.element_size() % WIDE.itemsize == 0
    return lines.view(WIDE) if whole and lines.storage_offset() * lines.element_size() % WIDE.itemsize == 0 else lines


@dataclass(frozen=True, slots=True)
class Recording:
    """Inputs by name, the mel that comes out, and the work between them."""

    inputs: dict[str, torch.Tensor]
    mel: torch.Tensor
    run: Work


class FlowWork:
    """Front and ten guided steps over tensors of one size.

    Args:
        front, step: modules on the device.
        cache: see ``DeviceFlowCache``.
    """

    def __init__(self, sizes: Sizes, front: FlowFront, step: DeviceStep, cache: DeviceFlowCache) -> None:
        self._sizes, self._front, self._step, self._cache = sizes, front, step, cache

    def __call__(self, inputs: dict[str, torch.Tensor], mel: torch.Tensor) -> None:
        """Reads ``inputs`` and the caches; writes ``mel`` and the caches."""
        mu, speaker = self._front(inputs["tokens"], inputs["valid"], inputs["embedding"])
        pages = FlowPages(
            inputs["tables"], inputs["table_blocks"], inputs["first"], inputs["frames"], self._cache.window
        )
        call = self._step.begin(mu, speaker, inputs["kept"], pages)
        x, rows = inputs["x"], inputs["tail_rows"]
        for number in range(self._sizes.euler_steps):
            blocks, tails = self._cache.blocks[number], self._cache.tails[number]
            x, own, new_tails = self._step(x, number, tails[rows], blocks, call)
            tails.index_copy_(0, rows, new_tails)
            wide(blocks).index_copy_(1, inputs["places"], wide(own))
        mel.copy_(x)


class DeviceFlowStage(FlowStage):
    """``FlowStage`` whose rendering stays on a device; full attention is not offered here."""

    def __init__(
        self,
        sizes: Sizes,
        work: Callable[[dict[str, torch.Tensor], torch.Tensor], None],
        cache: DeviceFlowCache,
        executor: Executor,
        voices: dict[str, np.ndarray],
        mel_noise: Noise,
        max_streams: int,
    ) -> None:
        super().__init__(sizes, _no_graph, _no_graph, voices, mel_noise, max_streams, cache.window, cache=cache)
        self._device_cache, self._work, self._executor = cache, work, executor
        self.recordings: dict[tuple[int, int], Recording] = {}
        self._speaker_width = len(next(iter(voices.values())))

    @torch.inference_mode()
    def prepare(self, rows: int) -> None:
        """Records every size of calls of at most ``rows`` chunks now, so that no stream waits for it.

        The largest first: smaller ones then fit into its memory. Each is run once on padding behind all recordings,
        so that no stream pays for pinned memory either.
        """
        frames = [blocks * self._sizes.block_frames for blocks in reversed(range(1, CALL_BLOCKS + 1))]
        calls = [(size, total) for total in frames for size in powers_down(rows)]
        for size, total in calls:
            self._recording(size, total)
        for size, total in calls:
            self._run(size, total, self._inputs((), size, total))

    @torch.inference_mode()
    def _render(self, pieces: Sequence[Piece]) -> None:
        caches = [piece.rendering.state.cache for piece in pieces]
        counts = [piece.blocks for piece in pieces]
        total = round_up(max(piece.frames for piece in pieces), self._sizes.block_frames)
        rows = power_of_two(len(pieces))
        mels = self._run(rows, total, self._inputs(pieces, rows, total))
        self._device_cache.advance(caches, counts)
        for piece, mel in zip(pieces, mels, strict=False):
            # A copy: what was fetched is overwritten by a later call.
            self._give(piece, mel.copy())

    def _run(self, rows: int, total: int, inputs: Arrays) -> np.ndarray:
        """Mel [rows, bins, total] of a call, until a later one."""
        recording = self._recording(rows, total)
        for name, values in inputs.items():
            self._executor.upload(recording.inputs[name], values)
        recording.run()
        return self._executor.fetch(recording.mel).wait()

    def _inputs(self, pieces: Sequence[Piece], rows: int, total: int) -> Arrays:
        """Host values of a call; rows beyond the pieces are one silent frame of padding."""
        sizes, cache = self._sizes, self._device_cache
        caches = [piece.rendering.state.cache for piece in pieces]
        counts = [piece.blocks for piece in pieces]

        def column(values: Sequence[int], rest: int) -> np.ndarray:
            return np.array([*values, *[rest] * (rows - len(pieces))], np.int64)

        x = np.zeros((rows, sizes.mel_bins, total), np.float32)
        for row, piece in enumerate(pieces):
            x[row] = self._noise.window(piece.first, piece.first + total)
        width = total // sizes.frames_per_token
        front = self._tokens(pieces, width) if pieces else {}
        blank: Arrays = {
            "tokens": np.zeros((rows, sizes.lookbehind + width + sizes.lookahead), np.int64),
            "valid": np.zeros((rows, sizes.lookbehind + width + sizes.lookahead), np.float32),
            "embedding": np.ones((rows, self._speaker_width), np.float32),
        }
        for name, values in front.items():
            blank[name][: len(pieces)] = values
        return {
            **blank,
            **cache.wide_tables(caches, rows),  # before ``places``, which gives out the rows of new blocks
            "x": x,
            "first": column([piece.first for piece in pieces], 0),
            "frames": column([piece.frames for piece in pieces], 1),
            "kept": column([count * sizes.block_frames for count in counts], 0),
            "tail_rows": column([int(c.tails) for c in caches], cache.spare_tail),
            "places": cache.places(caches, counts, rows, total // sizes.block_frames),
        }

    def _recording(self, rows: int, total: int) -> Recording:
        found = self.recordings.get((rows, total))
        if found is None:
            device = self._executor.device
            empty = self._inputs((), rows, total)
            inputs = {name: torch.tensor(values, device=device) for name, values in empty.items()}
            mel = torch.zeros_like(inputs["x"])
            run = self._executor.record(lambda: self._work(inputs, mel), lambda: None)
            found = self.recordings[rows, total] = Recording(inputs, mel, run)
        return found


def _no_graph(arrays: Arrays) -> Arrays:
    raise AssertionError("the device stage renders without graphs of arrays")
