"""A double of the library's network layer: it traces shapes and enforces the recorded interfaces.

Given values it also computes: one context sequence from position 0, in torch, as the library's layers are
documented to. So the network's own wiring can be run. Inputs that the library declares itself come from the
recorded table, not from our declaration, so that the two can be compared.
"""

import math
from collections import OrderedDict
from enum import Enum
from fnmatch import fnmatchcase

import recorded
import torch
from torch.nn.functional import scaled_dot_product_attention, silu
from trace_double import DTYPES, ContractViolation, DataType, Tensor, enforced

LayerNormType = Enum("LayerNormType", ["LayerNorm", "RmsNorm", "GroupNorm"])
AttentionMaskType = Enum("AttentionMaskType", ["causal", "padding"])
QUANTISED_ON_LOAD = ("qkv", "dense", "fc", "gate", "proj")


class Module:
    """Parameters are shapes and, after loading, tensors; modules inside modules have dotted names."""

    def __init__(self):
        self.shapes, self.tensors = {}, {}

    def __call__(self, *args, **kwargs):
        self.calls = getattr(self, "calls", 0) + 1
        return self.forward(*args, **kwargs)

    def named_modules(self, prefix=""):
        yield prefix, self
        for name, value in vars(self).items():
            children = enumerate(value.children) if isinstance(value, DecoderLayerList) else ((None, value),)
            for number, child in children:
                if isinstance(child, Module):
                    path = name if number is None else f"{name}.{number}"
                    yield from child.named_modules(f"{prefix}.{path}" if prefix else path)

    def named_parameters(self):
        for prefix, module in self.named_modules():
            for name, shape in module.shapes.items():
                yield f"{prefix}.{name}", tuple(shape)


class RmsNorm(Module):
    @enforced("tensorrt_llm.layers.RmsNorm")
    def __init__(self, normalized_shape, num_groups=1, eps=1e-06, elementwise_affine=True, dtype=None):
        super().__init__()
        self.width, self.eps, self.dtype = normalized_shape, eps, DTYPES[dtype]
        self.shapes["weight"] = (normalized_shape,)

    @enforced("tensorrt_llm.layers.RmsNorm.forward")
    def forward(self, x):
        assert x.axes[-1] == self.width and x.dtype == self.dtype
        return Tensor.inner(x.axes, x.dtype, x.then(self._normalise))

    def _normalise(self, value):
        scale = (value.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return value * scale * self.tensors["weight"]


class ColumnLinear(Module):
    @enforced("tensorrt_llm.layers.ColumnLinear")
    def __init__(self, in_features, out_features, bias=True, dtype=None, tp_group=None, tp_size=1, gather_output=True):
        super().__init__()
        assert not bias, "our checkpoints have no biases"
        self.inputs, self.outputs, self.dtype = in_features, out_features, DTYPES[dtype]
        self.shapes["weight"] = (out_features, in_features)

    @enforced("tensorrt_llm.layers.ColumnLinear.forward")
    def forward(self, x):
        assert x.axes[-1] == self.inputs and x.dtype == self.dtype, (x.axes, self.inputs)
        value = x.then(lambda value: value @ self.tensors["weight"].T)
        return Tensor.inner([*x.axes[:-1], self.outputs], self.dtype, value)


def rotate(x, base):
    """[rows, heads, head size]; component j turns with component j + half."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x))[:, None, None] / base ** (torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


class Attention(Module):
    @enforced("tensorrt_llm.layers.Attention")
    def __init__(self, **options):
        super().__init__()
        self.options = options
        size, hidden = options["attention_head_size"], options["hidden_size"]
        heads, kv_heads = options["num_attention_heads"], options["num_kv_heads"]
        linear = {"bias": options.get("bias", True), "dtype": options["dtype"]}
        self.qkv = ColumnLinear(hidden, (heads + 2 * kv_heads) * size, **linear)
        self.dense = ColumnLinear(heads * size, hidden, **linear)
        if options.get("qk_layernorm"):
            assert options["layernorm_type"] is LayerNormType.RmsNorm
            norm = {"eps": options.get("eps", 1e-05), "dtype": options["dtype"]}
            self.q_layernorm, self.k_layernorm = RmsNorm(size, **norm), RmsNorm(size, **norm)

    @enforced("tensorrt_llm.layers.Attention.forward")
    def forward(self, hidden_states, attention_mask=None, use_cache=False, kv_cache_params=None, attention_params=None):
        assert use_cache and attention_mask is None
        missing = [n for n, v in (kv_cache_params | attention_params).items() if v is None and n not in NOT_OURS]
        if missing:
            raise ContractViolation(f"the attention plugin was not given {missing}")
        mixed, size = self.qkv(hidden_states), self.options["attention_head_size"]
        heads, kv_heads = self.options["num_attention_heads"], self.options["num_kv_heads"]
        parts = mixed.then(lambda value: value.view(len(value), -1, size).split([heads, kv_heads, kv_heads], dim=1))
        q, k = (
            norm(Tensor.inner([mixed.axes[0], size], mixed.dtype, parts and parts[i]))
            for i, norm in enumerate((self.q_layernorm, self.k_layernorm))
        )
        value = parts and self._attend(q.value, k.value, parts[2])
        return self.dense(Tensor.inner([mixed.axes[0], self.dense.inputs], mixed.dtype, value)), None

    def _attend(self, q, k, v):
        """The plugin's part: rotary positions (gpt_neox), grouped causal attention. [rows, heads, head size] each."""
        q, k = (rotate(part, self.options["rotary_embedding_base"]).transpose(0, 1) for part in (q, k))
        mixed = scaled_dot_product_attention(q, k, v.transpose(0, 1), is_causal=True, enable_gqa=True)
        return mixed.transpose(0, 1).flatten(1)

    @staticmethod
    @enforced("tensorrt_llm.layers.Attention.create_attention_const_params")
    def create_attention_const_params(model_cls, config):
        model_cls.rope_length = config.max_position_embeddings

    @staticmethod
    @enforced("tensorrt_llm.layers.Attention.fill_attention_params")
    def fill_attention_params(model_cls, attention_params):
        assert model_cls.position_embedding_type == "rope_gpt_neox" and model_cls.rope_length
        return attention_params


class GatedMLP(Module):
    @enforced("tensorrt_llm.layers.GatedMLP")
    def __init__(self, hidden_size, ffn_hidden_size, hidden_act, bias=True, dtype=None, quant_mode=None):
        super().__init__()
        assert hidden_act == "silu"
        self.fc = ColumnLinear(hidden_size, ffn_hidden_size, bias=bias, dtype=dtype)
        self.gate = ColumnLinear(hidden_size, ffn_hidden_size, bias=bias, dtype=dtype)
        self.proj = ColumnLinear(ffn_hidden_size, hidden_size, bias=bias, dtype=dtype)

    @enforced("tensorrt_llm.layers.GatedMLP.forward")
    def forward(self, hidden_states):
        fc, gate = self.fc(hidden_states), self.gate(hidden_states)
        return self.proj(Tensor.inner(fc.axes, fc.dtype, fc.then(lambda value: silu(value) * gate.value)))


class DecoderLayerList(Module):
    @enforced("tensorrt_llm.models.modeling_utils.DecoderLayerList")
    def __init__(self, layer_class, config):
        super().__init__()
        self.children = [layer_class(config, i) for i in range(config.num_hidden_layers)]

    @enforced("tensorrt_llm.models.modeling_utils.DecoderLayerList.forward")
    def forward(self, hidden_states, use_cache=False, kv_cache_params=None, attention_params=None):
        for layer in self.children:
            hidden_states, _ = layer(
                hidden_states,
                use_cache=use_cache,
                attention_mask=None,
                kv_cache_params=kv_cache_params,
                attention_params=attention_params,
            )
        return hidden_states, [None] * len(self.children)


# What an encoder-decoder model would give; ours gives all the rest.
NOT_OURS = ("past_key_value", "encoder_input_lengths", "encoder_max_input_length")


def params_class(path):
    """The library's two bundles of inputs: what is left out is None."""
    names = [parameter.name for parameter in recorded.load().signatures[path].parameters]
    return enforced(path)(lambda **params: dict.fromkeys(names) | params)


key_value_cache_params = params_class("tensorrt_llm.layers.KeyValueCacheParams")
attention_params = params_class("tensorrt_llm.layers.AttentionParams")


def check_all_called(model):
    """Every parameter is used, and once: a forgotten norm would still give outputs of the right shape."""
    for name, module in model.named_modules():
        if module.shapes and getattr(module, "calls", 0) != 1:
            raise ContractViolation(f"{name} is called {getattr(module, 'calls', 0)} times")


@enforced("tensorrt_llm.functional.gather_last_token_logits")
def gather_last_token_logits(hidden_states, last_token_ids, remove_input_padding):
    assert remove_input_padding and last_token_ids.dtype is DataType.INT32
    value = hidden_states.then(lambda value: value[last_token_ids.value - 1])
    return Tensor.inner([last_token_ids.axes[0], *hidden_states.axes[1:]], hidden_states.dtype, value)


def quantise(model, quantization):
    """As after construction: every linear layer that is not excluded gets a scale."""
    if quantization["quant_algo"] is None:
        return
    for name, module in model.named_modules():
        excluded = any(fnmatchcase(name, pattern) for pattern in quantization["exclude_modules"])
        if isinstance(module, ColumnLinear) and not excluded:
            module.shapes["per_channel_scale"] = (module.outputs,)


def quantise_weights(shapes, quantization):
    """As on loading: scales for the five projections and for nothing else."""
    if quantization["quant_algo"] is None:
        return shapes
    scales = {
        name.replace(".weight", ".per_channel_scale"): (shape[0],)
        for name, shape in shapes.items()
        if name.split(".")[-2] in QUANTISED_ON_LOAD
    }
    return shapes | scales


class GenerationMixin:
    """The library's own inputs, from the recorded table."""

    @staticmethod
    @enforced("tensorrt_llm.models.generation_mixin.GenerationMixin.get_profiles_ranges")
    def get_profiles_ranges(**sizes):
        assert sizes["kv_cache_type"] == "paged" and not sizes["multiple_profiles"] and not sizes["max_draft_len"]
        batch = [1, (sizes["max_batch_size"] + 1) // 2, sizes["max_batch_size"]]
        tokens = [1, sizes["opt_num_tokens"], sizes["max_num_tokens"]]
        return 1, {"bb_range": [batch], "bbd_range": [batch], "num_tokens_range": [tokens]}

    @enforced("tensorrt_llm.models.generation_mixin.GenerationMixin.prepare_attention_inputs")
    def prepare_attention_inputs(self, **options):
        assert options["kv_cache_type"] == "paged" and isinstance(options["kv_dtype"], DataType)
        assert options["remove_input_padding"] and options["use_gpt_attention_plugin"] and options["num_profiles"] == 1
        sizes = options | {"ceil": math.ceil, "num_layers": options["num_layers"]}
        found = {"past_key_value": [None] * options["num_layers"], "attention_mask": None}
        for entry in recorded.load().raw["engine_inputs"]:
            if entry["name"] not in ("inputs_embeds", "last_token_ids") and not entry["optional"]:
                found[entry["name"]] = _declare(entry, sizes)
        return found


def _declare(entry, sizes):
    def value(written):
        return written if isinstance(written, int) else eval(written, {}, sizes)

    ranges = OrderedDict()
    for axis, size in zip(entry["upstream_dim_names"], entry["shape"], strict=True):
        span = entry["profile_ranges"].get(size)
        ranges[axis] = [[value(v) for v in span] if span else value(size)]
    shape = [r[0] if isinstance(r[0], int) else r[0][0] if len(set(r[0])) == 1 else -1 for r in ranges.values()]
    return Tensor(name=entry["name"], dtype=DTYPES[entry["dtype"]], shape=shape, dim_range=ranges)
