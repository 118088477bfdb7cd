"""Short prompts in recorded passes: what they leave in the caches is what unrecorded ones leave, and nothing else."""

import random
from dataclasses import replace

import chat_data as data
import numpy as np
import torch
from pools import ints, make_pool
from test_kernel_frames import CPU, NEVER, Recorder, golden_stream

from kernels import paged_rows
from kernels.gpu import chunk_attention
from kernels.ops import kernel_ops, twin_ops
from kernels.paged_rows import TILE_ROWS
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat import prefill
from runtime.families.fun_audio_chat.build import recorded_loop
from runtime.families.fun_audio_chat.prefill import RecordedPrefill, prompt_buckets
from runtime.frames.rows import CHUNKS, PlacedRows, Places, tiles_for
from runtime.graphs.executor import EagerExecutor

UNTOUCHED = 7.0  # in every cache before a prompt comes


def text_only(stream):
    stream.answer.params = replace(stream.params, mode="s2t")
    return stream


def cut(stream, length):
    """The same with a shorter prompt."""
    prompt = stream.prompt
    positions = prompt.audio_positions[prompt.audio_positions < length]
    stream.prompt = replace(
        prompt, ids=prompt.ids[:length], audio_positions=positions, audio_embeds=prompt.audio_embeds[: len(positions)]
    )
    return stream


@torch.inference_mode()
def after_prompts(streams, chunk, ops=None, device=CPU):
    """Both pools [blocks, layers, 2, KV heads, tokens, head size] after the streams' first chunks, and the loop."""
    options = EngineOptions(len(streams), 256, 256 * len(streams), chunk, tokens_per_block=16, lead_s=NEVER)
    loop = recorded_loop(data.config(), options, device, ops=ops or twin_ops(), executor=EagerExecutor(device))
    pools = [stack.stack.memory for stack in (loop.model.steps.backbone_stack, loop.model.steps.speech_stack)]
    for pool in pools:
        pool[:-1] = UNTOUCHED
    for stream in streams:
        loop.add(stream)
    plan = loop.scheduler.plan()
    for context in plan.contexts:
        loop.model._admit(context.stream)
    loop.model._prefill.run(plan.contexts)
    return pools, loop


def written(pool, cache, slot):
    """Which positions of a slot hold something else than before, in every layer, K and V and head."""
    blocks = [pool[block] for block in cache.blocks_of(slot)]
    lines = torch.cat(blocks, dim=3).transpose(0, 3)  # [positions, 2, heads, layers, dim]
    changed = lines != UNTOUCHED
    assert torch.equal(changed.flatten(1).any(1), changed.flatten(1).all(1))
    return changed.flatten(1).any(1)


def company():
    """Three prompts of one chunk: speaking ones around one that is text only."""
    prompts = [cut(golden_stream("s2s_chirp_0p5s", key), length) for key, length in enumerate((30, 6, 17))]
    return [prompts[0], text_only(prompts[1]), prompts[2]]


def test_caches_are_those_of_an_unrecorded_pass(monkeypatch):
    """Every position of the prompts but the last, nothing of anybody else; numbers as without padding."""
    recorded, loop = after_prompts(company(), 128)
    monkeypatch.setattr(RecordedPrefill, "takes", lambda self, lengths: False)
    plain, _ = after_prompts(company(), 128)
    caches = loop.model._caches
    owned = [set(), set()]
    for slot, length in enumerate((29, 5, 16)):
        stacks = [(0, length)] if length == 5 else [(0, length), (1, 5 * length)]
        for which, count in stacks:
            assert written(recorded[which], caches[which], slot).nonzero()[:, 0].tolist() == list(range(count))
            owned[which] |= set(caches[which].blocks_of(slot))
    for which, (mine, other) in enumerate(zip(recorded, plain, strict=True)):
        torch.testing.assert_close(mine[:-1], other[:-1], atol=1e-5, rtol=1e-5)
        others = [block for block in range(len(mine) - 1) if block not in owned[which]]
        assert others and bool((mine[others] == UNTOUCHED).all()), "padding rows have the spare block, the last one"


def test_the_pass_is_recorded_and_padded(monkeypatch):
    """Control: 50 rows run as 64, 45 of them speak and run as 5 * 64; 129 rows run as they come."""
    sizes = []
    for name in ("_backbone_pass", "_speech_pass"):
        right = getattr(RecordedPrefill, name)

        def noted(self, size, rows, right=right):
            sizes.append((size, len(rows.slots), rows.contexts))
            right(self, size, rows)

        monkeypatch.setattr(RecordedPrefill, name, noted)
    after_prompts(company(), 128)
    assert sizes == [(64, 64, 64), (64, 320, 320)]
    sizes.clear()
    after_prompts([golden_stream("s2s_tones_7s"), golden_stream("s2s_tones_7s", 1)], 256)
    assert sizes == []


def test_what_a_pass_takes():
    assert prompt_buckets(16) == (32,) and prompt_buckets(64) == (32, 64) and prompt_buckets(4096) == (32, 64, 128)
    _, loop = after_prompts(company(), 128)
    takes = loop.model._prefill._recorded.takes
    assert takes([128]) and takes([16] * CHUNKS) and not takes([129]) and not takes([1] * (CHUNKS + 1))


def test_any_lengths_find_their_tiles():
    """Each row is in one tile, of its own chunk, and what is left over of the tiles has no rows."""
    rng, most = random.Random(0), 640
    placed = PlacedRows(Recorder(), most, padding=9)
    for _ in range(300):
        lengths = [rng.randint(1, 75) for _ in range(rng.randint(1, CHUNKS))]
        count = sum(lengths)
        size = min(most, -(-count // TILE_ROWS) * TILE_ROWS + TILE_ROWS * rng.randint(0, 3))
        slots = np.repeat(np.arange(len(lengths)), lengths)
        placed.place(Places(slots, 100 + np.arange(count), lengths), size)
        rows = placed.rows(size)
        assert len(rows.tiles) == tiles_for(size) and rows.contexts == size
        seen = [row for first, n in rows.tiles.tolist() for row in range(first, first + n)]
        assert seen == list(range(size))
        assert all(len(set(rows.slots[first : first + n].tolist())) <= 1 for first, n in rows.tiles.tolist())
        assert rows.slots[count:].tolist() == [9] * (size - count) and not rows.positions[count:].any()
        assert rows.positions[:count].tolist() == list(range(100, 100 + count))


def test_no_short_prompt_needs_another_recording(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("runtime.families.fun_audio_chat.build.executor_for", lambda device: recorder)
    loop = recorded_loop(data.config(), EngineOptions(2, 256, 512, 128, lead_s=NEVER), CPU)
    loop.model.prepare()
    before = recorder.recorded
    assert before == 3 * len((1, 2)) + 2 * len(prompt_buckets(128)), "three works of a frame, two of a prompt"
    for key, length in enumerate((2, 33, 34, 65, 66, 70)):
        stream = cut(golden_stream("s2s_noise_2p3s", key), length)
        loop.add(text_only(stream) if key % 2 else stream)
        while loop.scheduler.waiting or loop.scheduler.prefilling:
            loop.step()
        loop.cancel(stream)
    assert recorder.recorded == before


def test_tiles_without_rows_change_nothing(device):
    pool = make_pool(device, [21, 40], 2, 32, 8)
    slots = ints([0] * 3 + [1] * 5, device)
    positions = ints([4, 5, 6, 30, 31, 32, 33, 34], device)
    q = torch.randn(8, 4, 32, device=device)
    tiles = ints([[0, 3], [3, 5]], device)
    more = ints([[0, 3], [3, 0], [3, 5], [0, 0], [0, 0]], device)
    expected = paged_rows.attend_chunks(q, pool, slots, positions, tiles, 1)
    assert torch.equal(paged_rows.attend_chunks(q, pool, slots, positions, more, 1), expected)
    plain = chunk_attention.attend_chunks(q, pool, slots, positions, tiles, 1)
    assert torch.equal(chunk_attention.attend_chunks(q, pool, slots, positions, more, 1), plain)


def test_through_the_kernels(monkeypatch, device):
    """A chunk with padding rows behind it."""
    monkeypatch.setattr(prefill, "BUCKETS", (16,))
    found = []
    for ops in (twin_ops(), kernel_ops()):
        pools, loop = after_prompts([golden_stream("s2s_chirp_0p5s")], 11, ops, device)
        slots = [written(pool, cache, 0) for pool, cache in zip(pools, loop.model._caches, strict=True)]
        assert [int(lines.sum()) for lines in slots] == [11, 55]
        found.append([pool[:-1] for pool in pools])
    for expected, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)
        assert bool((mine == UNTOUCHED).any())
