"""One TensorRT-LLM checkpoint to one engine. The only calls of the library's builder are here.

Runs inside the serving image, on the GPU model that will serve: neither plans nor timing caches travel.
"""

from __future__ import annotations

from pathlib import Path

from builders.tensorrt.precision import Precision, compiled_names
from runtime.engines.trtllm.files import CONFIG_FILE, ENGINE_FILE
from runtime.engines.trtllm.spec import BEAM_WIDTH, EngineProfile
from runtime.errors import BuildError

GEMM_PLUGIN = "auto"  # of the engine's own type


def compile_engine(
    checkpoint: Path, profile: EngineProfile, precision: Precision, out: Path, timing_cache: Path
) -> list[Path]:
    """Compiles and writes ``rank0.engine`` and ``config.json``; returns both.

    Args:
        checkpoint: a converted checkpoint directory.
        precision: of the checkpoint.
        timing_cache: measured kernel times, read when there are any and written; both engines share it.

    Raises:
        BuildError: the precision cannot be compiled, or the library gave no engine.
    """
    if not precision.compiles:
        remedy = f"use one of {', '.join(compiled_names())}"
        raise BuildError("precision", f"{precision.name} is for checkpoints alone", remedy)
    # Late: importing the library takes many seconds and starts MPI.
    from tensorrt_llm.builder import BuildConfig, build
    from tensorrt_llm.plugin import PluginConfig

    from builders.tensorrt.fac_engine import FacEngine

    out.mkdir(parents=True, exist_ok=True)
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    shape = profile.shape
    plugins = PluginConfig(
        # Products of one row and of thousands go through one profile: cuBLASLt chooses by the row count when it runs.
        # Weight-only layers have a plugin of their own that does.
        gemm_plugin=None if precision.quant_algo else GEMM_PLUGIN,
        remove_input_padding=True,
        context_fmha=True,
        use_paged_context_fmha=True,  # chunked prefill needs it
        tokens_per_block=shape.tokens_per_block,
        multiple_profiles=False,
    )
    config = BuildConfig(
        max_batch_size=shape.max_batch_size,
        max_input_len=profile.max_input_len,
        max_seq_len=shape.max_seq_len,
        max_num_tokens=shape.max_num_tokens,
        opt_num_tokens=profile.opt_num_tokens,
        max_beam_width=BEAM_WIDTH,
        strongly_typed=True,
        input_timing_cache=str(timing_cache) if timing_cache.exists() else None,
        output_timing_cache=str(timing_cache),
        plugin_config=plugins,
    )
    # A build may change its model: one fresh object each.
    engine = build(FacEngine.from_checkpoint(str(checkpoint)), config)
    engine.save(str(out))
    files = [out / CONFIG_FILE, out / ENGINE_FILE]
    missing = [path for path in files if not path.exists() or not path.stat().st_size]
    if missing:
        raise BuildError(str(missing[0]), "was not written", "see TensorRT's messages above")
    return files
