"""The wiring of our TensorRT-LLM network: its own ``forward`` run on converted weights, against recorded vectors.

The library's layers are doubles that compute in torch what the library documents of them. Proven is what
is ours: which module gets what, residuals, norms, both heads, which rows are given out. Not proven: that
the library's layers compute that.
"""

import sys
from pathlib import Path

import chat_data as data
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
import library_double
from test_trtllm_checkpoint import backbone_inputs, speech_inputs
from trace_double import Trace

from builders.tensorrt.convert import convert
from builders.tensorrt.convert_plan import backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from runtime.checkpoint.weights import load_weights
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.profiles import backbone_profile
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.tensors import backbone_shapes, speech_shapes

pytestmark = pytest.mark.golden
LOGITS, OTHER = 2e-4, 1e-4
POSITIONS = 4096  # of the longest sequence
CLIPS = ("chirp_0p5s", "noise_2p3s")


@pytest.fixture(scope="module")
def projections():
    config = data.config()
    weights = load_weights(config.directory, backbone_shapes(config) | speech_shapes(config), torch.float32)
    return Projections(config, weights)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the network of an engine on rows; ``lasts`` are the 1-based last rows that logits are wanted of."""
    library_double.install(monkeypatch)
    from builders.tensorrt.fac_engine import FacEngine

    def run(plan, rows, lasts):
        convert(data.config().directory, plan, Precision.named("f32"), POSITIONS, tmp_path)
        model = FacEngine.from_checkpoint(str(tmp_path))
        profile = backbone_profile(data.config(), EngineOptions())  # only its sizes: any that fit
        shape = profile.shape
        Trace.current = trace = Trace(library_double.PluginConfig(tokens_per_block=shape.tokens_per_block))
        inputs = model.prepare_inputs(
            max_batch_size=shape.max_batch_size,
            max_input_len=profile.max_input_len,
            max_seq_len=shape.max_seq_len,
            max_num_tokens=shape.max_num_tokens,
            opt_num_tokens=profile.opt_num_tokens,
        )
        inputs["inputs_embeds"].value, inputs["last_token_ids"].value = rows, torch.tensor(lasts)
        model(**inputs)
        return trace.values

    yield run
    Trace.current = None


def close(found, expected, tolerance):
    np.testing.assert_allclose(np.asarray(found), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("clip", CLIPS)
def test_backbone_gives_hidden_states_of_all_rows_and_logits_of_last_rows(run, projections, clip):
    rows, length = backbone_inputs(clip, projections)
    golden, steps = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    found = run(backbone_plan(data.config()), rows, [length, len(rows)])
    assert list(found) == ["hidden_states", "logits"]
    close(found["hidden_states"][:length], golden["backbone_hidden_states"][-1], OTHER)
    close(found["hidden_states"][length - 1 :], steps["backbone_hidden_last"], OTHER)
    close(found["logits"][0], golden["text_logits"][-1], LOGITS)
    close(found["logits"][1, steps["text_logits_top10_ids"][-1]], steps["text_logits_top10"][-1], LOGITS)


@pytest.mark.parametrize("clip", CLIPS)
def test_speech_head_gives_logits_through_both_of_its_matrices(run, projections, clip):
    rows = speech_inputs(clip, projections)
    golden, steps = data.prefill(f"s2s_{clip}"), data.run(f"s2s_{clip}")
    found = run(speech_plan(data.config()), rows, [5 * len(golden["prompt_ids"]) - 4, len(rows)])
    assert list(found) == ["logits"]
    close(found["logits"][0], golden["srh_prefill_logits_last"], LOGITS)
    close(found["logits"][1, steps["srh_logits_top10_ids"][-1, -1]], steps["srh_logits_top10"][-1, -1], LOGITS)
