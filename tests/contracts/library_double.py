"""A double of ``tensorrt_llm`` as modules to import: loading, building and saving around ``network_double``.

A serialised engine is the JSON of its inputs and outputs.
"""

import json
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import network_double as net
import recorded
from safetensors.torch import load_file
from trace_double import DTYPES, ContractViolation, DataType, Tensor, Trace, enforced


@dataclass
class Log:
    """What was built, in order: the build configurations, and one call to fail at."""

    builds: list = field(default_factory=list)
    models: list = field(default_factory=list)
    fail_at: int = -1
    clip: dict = field(default_factory=dict)


class PluginConfig:
    @enforced("tensorrt_llm.plugin.PluginConfig")
    def __init__(self, **fields):
        vars(self).update(recorded.load().raw["plugin_config_fields"] | fields)


class BuildConfig:
    @enforced("tensorrt_llm.builder.BuildConfig")
    def __init__(self, **fields):
        vars(self).update(recorded.load().raw["build_config_fields"] | fields)


class QWenConfig:
    """From ``config.json``; every field that was recorded must be there, defaults are another model's."""

    def __init__(self, **fields):
        contract = recorded.load().raw["checkpoint"]
        missing = set(contract["config_fields"]) - set(fields)
        if missing or fields["architecture"] not in ("Qwen3ForCausalLM",):
            raise ContractViolation(f"config.json: {missing or fields['architecture']}")
        vars(self).update(fields)
        self.quant_mode, self.kv_dtype = fields["quantization"]["quant_algo"], fields["dtype"]
        self.saved = fields


class _AfterInit(type):
    def __call__(cls, *args, **kwargs):
        model = super().__call__(*args, **kwargs)
        net.quantise(model, model.config.quantization)
        return model


class PretrainedModel(net.Module, net.GenerationMixin, metaclass=_AfterInit):
    log: Log

    @enforced("tensorrt_llm.models.modeling_utils.PretrainedModel")
    def __init__(self, config):
        super().__init__()
        self.config = config

    @classmethod
    @enforced("tensorrt_llm.models.modeling_utils.PretrainedModel.from_checkpoint")
    def from_checkpoint(cls, ckpt_dir, rank=None, config=None):
        folder = Path(ckpt_dir)
        config = cls.config_class(**json.loads((folder / "config.json").read_text()))
        tensors = load_file(folder / "rank0.safetensors")
        assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{config.dtype}"}
        model = cls(config)
        model.load(net.quantise_weights({n: tuple(t.shape) for n, t in tensors.items()}, config.quantization))
        for name, module in model.named_modules():
            module.tensors = {key: tensors[f"{name}.{key}"] for key in module.shapes if f"{name}.{key}" in tensors}
        cls.log.models.append(model)
        return model

    def load(self, weights):
        required = dict(self.named_parameters())
        if required != weights:  # the library only warns of extra names; ours must have none
            differing = set(required.items()) ^ set(weights.items())
            raise RuntimeError(f"Required but not provided or of another shape: {sorted(differing)[:4]}")


class Engine:
    def __init__(self, trace, config, build_config):
        self._trace, self._config, self._build = trace, config, build_config

    @enforced("tensorrt_llm.builder.Engine.save")
    def save(self, engine_dir):
        plain = vars(self._build) | {"plugin_config": vars(self._build.plugin_config)}
        description = {"inputs": self._trace.inputs, "outputs": self._trace.outputs}
        (Path(engine_dir) / "rank0.engine").write_text(json.dumps(description))
        config = {
            "version": recorded.load().raw["versions"]["tensorrt_llm"],
            "pretrained_config": self._config.saved,
            "build_config": plain | PretrainedModel.log.clip,
        }
        (Path(engine_dir) / "config.json").write_text(json.dumps(config))


@enforced("tensorrt_llm.builder.build")
def build(model, build_config):
    log = PretrainedModel.log
    log.builds.append(build_config)
    if len(log.builds) - 1 == log.fail_at:
        raise KeyboardInterrupt
    if build_config.input_timing_cache is not None:
        assert Path(build_config.input_timing_cache).exists()
    assert build_config.max_input_len <= build_config.max_seq_len <= model.config.max_position_embeddings
    assert build_config.max_num_tokens <= build_config.max_seq_len * build_config.max_batch_size
    assert build_config.strongly_typed and build_config.max_beam_width == 1
    Trace.current = trace = Trace(build_config.plugin_config)
    keywords = recorded.load().signatures["tensorrt_llm.models.modeling_utils.PretrainedModel.prepare_inputs"]
    values = vars(build_config) | {"use_cache": True, "prompt_embedding_table_size": 0, "lora_target_modules": []}
    values["speculative_decoding_draft_tokens_external"] = False
    model(**model.prepare_inputs(**{p.name: values[p.name] for p in keywords.parameters}))
    net.check_all_called(model)
    Path(build_config.output_timing_cache).write_bytes(b"times")
    return Engine(trace, model.config, build_config)


def install(monkeypatch):
    """Puts the modules where imports find them and forgets what was imported of ours; returns the log."""
    log = PretrainedModel.log = Log()
    versions = recorded.load().raw["versions"]
    names = {
        "tensorrt": {"int32": DataType.INT32, "__version__": versions["tensorrt"]},
        "tensorrt_llm": {"__version__": versions["tensorrt_llm"]},
        "tensorrt_llm.builder": {"BuildConfig": BuildConfig, "build": build},
        "tensorrt_llm.plugin": {"PluginConfig": PluginConfig},
        "tensorrt_llm._common": {
            "default_net": enforced("tensorrt_llm._common.default_net")(
                lambda: SimpleNamespace(plugin_config=Trace.current.plugin_config)
            )
        },
        "tensorrt_llm._utils": {
            "str_dtype_to_trt": enforced("tensorrt_llm._utils.str_dtype_to_trt")(lambda dtype: DTYPES[dtype]),
            "pad_vocab_size": enforced("tensorrt_llm._utils.pad_vocab_size")(
                lambda vocab_size, tp_size: -(-vocab_size // tp_size) * tp_size
            ),
        },
        "tensorrt_llm.functional": {
            "Tensor": Tensor,
            "LayerNormType": net.LayerNormType,
            "gather_last_token_logits": net.gather_last_token_logits,
        },
        "tensorrt_llm.layers": {
            "Attention": net.Attention,
            "AttentionMaskType": net.AttentionMaskType,
            "AttentionParams": net.attention_params,
            "ColumnLinear": net.ColumnLinear,
            "GatedMLP": net.GatedMLP,
            "KeyValueCacheParams": net.key_value_cache_params,
            "RmsNorm": net.RmsNorm,
        },
        "tensorrt_llm.models": {},
        "tensorrt_llm.models.modeling_utils": {
            "DecoderLayerList": net.DecoderLayerList,
            "PretrainedModel": PretrainedModel,
            "get_kv_cache_type_from_legacy": enforced(
                "tensorrt_llm.models.modeling_utils.get_kv_cache_type_from_legacy"
            )(lambda use_cache, paged_kv_cache: "paged" if use_cache and paged_kv_cache else "continuous"),
        },
        "tensorrt_llm.models.qwen": {},
        "tensorrt_llm.models.qwen.config": {"QWenConfig": QWenConfig},
        "tensorrt_llm.module": {"Module": net.Module},
    }
    for name, members in names.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, loader=None)  # torch asks for it
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "builders.tensorrt.fac_engine", raising=False)
    return log
