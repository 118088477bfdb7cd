"""``config.json`` of a TensorRT-LLM checkpoint. Every field is written: the library's defaults are another model's."""

from __future__ import annotations

from typing import Any

from builders.tensorrt.convert_plan import CheckpointPlan
from builders.tensorrt.precision import Precision
from runtime.engines.trtllm.spec import LOGITS_DTYPE

# The library finds the configuration class by this name; its own model of that name is not used.
ARCHITECTURE, QWEN_TYPE = "Qwen3ForCausalLM", "qwen3"
#: Our own field beside the library's: ``fac_engine`` reads it.
MATCHING_FIELD = "output_matching_size"
ROPE_STEP = 1024  # positions: an odd length would gain nothing
ONE_RANK = {"world_size": 1, "tp_size": 1, "pp_size": 1, "cp_size": 1}


def checkpoint_config(plan: CheckpointPlan, precision: Precision, positions: int) -> dict[str, Any]:
    """The fields, with ``MATCHING_FIELD`` as the only one that is ours.

    ``positions``: of the longest sequence of the engine. The rope table is a float32 constant of the engine: of all
    the positions that the released backbone may have it would be 134 MB.
    """
    decoder = plan.decoder
    table = min(-(-positions // ROPE_STEP) * ROPE_STEP, decoder.max_positions)
    return {
        "architecture": ARCHITECTURE,
        "qwen_type": QWEN_TYPE,
        "dtype": precision.dtype,
        "logits_dtype": LOGITS_DTYPE,
        "vocab_size": decoder.output_size,
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "num_hidden_layers": decoder.num_layers,
        "num_attention_heads": decoder.num_heads,
        "num_key_value_heads": decoder.num_kv_heads,
        # Left out it would be hidden_size / heads, which is wrong for the speech head.
        "head_size": decoder.head_dim,
        "hidden_act": "silu",
        # Of all norms, the q and k norms included.
        "norm_epsilon": decoder.rms_norm_eps,
        "position_embedding_type": "rope_gpt_neox",
        # Length of the rope table; the engine's longest sequence is checked against it before a build.
        "max_position_embeddings": table,
        "rotary_embedding_dim": decoder.head_dim,
        "rotary_base": decoder.rope_theta,
        "rotary_scaling": None,
        "attn_bias": False,
        "mlp_bias": False,
        "seq_length": table,
        "use_logn_attn": False,
        # Both heads are written out, also where Hugging Face ties one to an embedding.
        "tie_word_embeddings": False,
        "disable_weight_only_quant_plugin": False,
        "moe": None,
        "num_labels": 1,
        "mapping": dict(ONE_RANK),
        "quantization": precision.quantization,
        MATCHING_FIELD: plan.matching_size,
    }
