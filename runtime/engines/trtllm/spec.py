"""Every input and output of a TensorRT-LLM engine, as the builder declares and the runtime fills them.

The one declaration of names, dtypes, places, shapes and profile ranges. The builder compiles for it,
the runtime compares a loaded engine with it, and a test compares it with the recorded contract and
with what ``runtime.engines.packer`` makes. Plain data: no torch, no TensorRT.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.engines.base import PERF_KNOBS, EngineShape

HOST, DEVICE = "host", "device"
DYNAMIC = -1
MODEL_DTYPES = ("bfloat16", "float16", "float32")
LOGITS_DTYPE = "float32"
INPUT_EMBEDS, HIDDEN_STATES, LOGITS = "inputs_embeds", "hidden_states", "logits"
BEAM_WIDTH = 1
POOLS = 1  # engines may allow one pool per layer (it depends on the library's version); we always have one
KEY_AND_VALUE = 2
POINTER_PAIR = 2  # a pool in device memory and its host twin, which we do not have
POOL_LOCATOR = 2  # (pool, layer inside the pool)
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Dim:
    """One axis: the engine's name for it and the sizes that the optimisation profile must allow."""

    name: str
    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"{self.name}: {self.minimum}, {self.optimum}, {self.maximum} is no range")

    @property
    def is_static(self) -> bool:
        """Whether only one size is possible."""
        return self.minimum == self.maximum

    def __str__(self) -> str:
        return f"{self.name}={self.minimum}" + ("" if self.is_static else f"..{self.maximum}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One engine tensor.

    ``location`` says which memory the address is in. The engine itself declares all its inputs as device
    tensors; only the attention plugin reads host ones, on the host, so the engine cannot be asked.
    """

    name: str
    dtype: str
    location: str
    dims: tuple[Dim, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, ``DYNAMIC`` where a profile decides. An engine may report ``DYNAMIC`` for static axes too."""
        return tuple(dim.minimum if dim.is_static else DYNAMIC for dim in self.dims)

    @property
    def ranges(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The smallest, likeliest and largest shape of profile 0."""
        return (
            tuple(dim.minimum for dim in self.dims),
            tuple(dim.optimum for dim in self.dims),
            tuple(dim.maximum for dim in self.dims),
        )

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape may be bound."""
        return len(shape) == len(self.dims) and all(
            dim.minimum <= size <= dim.maximum for dim, size in zip(self.dims, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.dims))}] on the {self.location}"


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What one engine is compiled for.

    Args:
        shape: sizes that packer, cache and engine share; ``num_blocks`` is the pool's and not compiled in.
        output_size: width of the logits: vocabulary or codebook.
        dtype: of ``inputs_embeds``, ``hidden_states`` and the KV pool.
        max_input_len: longest context chunk; it sizes the attention workspace.
        opt_num_tokens: packed rows that the kernels are chosen for.
        hidden_states: whether ``hidden_states`` is an output (of the backbone it is, of the speech head not).
    """

    shape: EngineShape
    output_size: int
    dtype: str
    max_input_len: int
    opt_num_tokens: int
    hidden_states: bool

    def __post_init__(self) -> None:
        shape = self.shape
        if self.dtype not in MODEL_DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is not one of {', '.join(MODEL_DTYPES)}")
        if self.output_size < 1:
            raise ValueError(f"output_size: {self.output_size} is not positive")
        # The build clips what exceeds these, silently: the engine would then be smaller than its runtime thinks.
        for name, value, limit in (
            ("max_input_len", self.max_input_len, min(shape.max_seq_len, shape.max_num_tokens)),
            ("max_num_tokens", shape.max_num_tokens, shape.max_seq_len * shape.max_batch_size),
            ("opt_num_tokens", self.opt_num_tokens, shape.max_num_tokens),
        ):
            if not 1 <= value <= limit:
                raise ValueError(f"{name}: {value} is not within 1..{limit}")
        entries = (shape.max_batch_size * KEY_AND_VALUE - 1) * shape.max_blocks_per_seq
        if entries > INT32_MAX:
            raise ValueError(f"max_batch_size: block tables of {entries} entries exceed int32")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the order of the contract."""
        return _inputs(self)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """``hidden_states`` [rows, hidden] where wanted, then ``logits`` [sequences, output size]."""
        dims = _Dims(self)
        logits = TensorSpec(LOGITS, LOGITS_DTYPE, DEVICE, (dims.last_tokens, _fixed("vocab_size", self.output_size)))
        if not self.hidden_states:
            return (logits,)
        return TensorSpec(HIDDEN_STATES, self.dtype, DEVICE, (dims.tokens, dims.hidden)), logits


def _fixed(name: str, size: int) -> Dim:
    return Dim(name, size, size, size)


def _up_to(name: str, maximum: int) -> Dim:
    return Dim(name, 1, (maximum + 1) // 2, maximum)


class _Dims:
    """The axes that several tensors share. One name always has one range: the builder insists on it."""

    def __init__(self, profile: EngineProfile) -> None:
        shape = profile.shape
        per_block = shape.tokens_per_block
        half = (shape.max_seq_len + 1) // 2
        self.tokens = Dim("num_tokens", 1, profile.opt_num_tokens, shape.max_num_tokens)
        self.hidden = _fixed("hidden_size", shape.hidden_size)
        self.sequences = _up_to("batch_size_beam_width", shape.max_batch_size)
        self.last_tokens = _up_to("batch_size_last_token_ids", shape.max_batch_size)
        self.pools = _fixed("num_kv_cache_pools", POOLS)
        self.blocks = Dim("max_blocks_per_seq", 1, -(-half // per_block), shape.max_blocks_per_seq)


def _inputs(profile: EngineProfile) -> tuple[TensorSpec, ...]:
    shape, dims = profile.shape, _Dims(profile)
    layers = shape.num_layers
    tables = (dims.pools, dims.sequences, _fixed("kv", KEY_AND_VALUE), dims.blocks)
    indirection = (
        _up_to("batch_size_cache", shape.max_batch_size),
        _fixed("beam_width", BEAM_WIDTH),
        _up_to("max_seq_len", shape.max_seq_len),
    )
    pointers = (_fixed("num_pools_layers", POOLS), _fixed("num_pools_kv", POINTER_PAIR))
    mapping = (_fixed("pools_mapping", layers), _fixed("layer_cache_pool_locator", POOL_LOCATOR))
    per_sequence = (dims.sequences,)
    return (
        TensorSpec(INPUT_EMBEDS, profile.dtype, DEVICE, (dims.tokens, dims.hidden)),
        TensorSpec("last_token_ids", "int32", DEVICE, (dims.last_tokens,)),
        TensorSpec("sequence_length", "int32", DEVICE, per_sequence),
        TensorSpec("context_lengths", "int32", DEVICE, per_sequence),
        TensorSpec("host_context_lengths", "int32", HOST, per_sequence),
        TensorSpec("host_request_types", "int32", HOST, per_sequence),
        TensorSpec("host_past_key_value_lengths", "int32", HOST, per_sequence),
        TensorSpec("host_max_attention_window_sizes", "int32", HOST, (_fixed("num_layers", layers),)),
        TensorSpec("host_sink_token_length", "int32", HOST, (_fixed("scalar", 1),)),
        TensorSpec("host_runtime_perf_knobs", "int64", HOST, (_fixed("perf_knob_size", PERF_KNOBS),)),
        TensorSpec("host_context_progress", "int64", HOST, (_fixed("context_progress_size", 1),)),
        TensorSpec("cache_indirection", "int32", DEVICE, indirection),
        TensorSpec("kv_cache_block_offsets", "int32", DEVICE, tables),
        TensorSpec("host_kv_cache_block_offsets", "int32", HOST, tables),
        TensorSpec("host_kv_cache_pool_pointers", "int64", HOST, pointers),
        TensorSpec("host_kv_cache_pool_mapping", "int32", HOST, mapping),
    )
