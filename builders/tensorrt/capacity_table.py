"""The division of a GPU's memory in words: one line per part, then streams by length of the conversation."""

from __future__ import annotations

from builders.tensorrt.capacity import GIB, Capacity
from builders.tensorrt.profiles import Profile

POSITIONS_PER_MINUTE = 5 * 60  # frames of 200 ms


def capacity_lines(profile: Profile, gpu: str, capacity: Capacity) -> list[str]:
    """Lines to print; sizes in GiB, lengths in backbone positions and minutes of speech."""
    parts = [
        ("memory", capacity.memory),
        ("engine weights", capacity.weights),
        ("tables in torch", capacity.tables),
        ("other models, workspaces", capacity.reserve),
        ("KV cache, backbone", capacity.backbone_kv),
        ("KV cache, speech head", capacity.speech_kv),
    ]
    lines = [f"{profile.name} on {gpu} (computed from the shapes, not measured):"]
    lines += [f"  {name:<26}{size / GIB:>8.2f} GiB" for name, size in parts]
    lines.append(f"  {'positions of all streams':<26}{capacity.positions:>8}")
    lines.append(f"  {'context':>9}{'minutes':>10}{'streams':>10}")
    for positions in _contexts(profile.max_positions):
        streams = capacity.streams(positions, profile.max_streams)
        full = " (the most of this profile)" if streams == profile.max_streams else ""
        lines.append(f"  {positions:>9}{positions / POSITIONS_PER_MINUTE:>10.1f}{streams:>10}{full}")
    return lines


def _contexts(longest: int) -> list[int]:
    """The longest context and its halves, down to a sixteenth."""
    return [max(1, longest >> shift) for shift in (4, 3, 2, 1, 0)]
