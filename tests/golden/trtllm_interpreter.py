"""Runs a TensorRT-LLM checkpoint directory, knowing nothing but that format.

Written from the format's description alone, in the plainest form: one sequence, no cache, all of it
in float32. It shares no code with the converter or the engines, so that a mistake in them cannot
repeat itself here. Weight-only quantisation is done as the library does it on loading.
"""

import json
from fnmatch import fnmatch

import torch
from safetensors import safe_open

QUANTISED_ON_LOAD = ("qkv", "dense", "fc", "gate", "proj")  # module names, last part
INT8_MIN, INT8_MAX = -128, 127


class Checkpoint:
    """``config.json`` and ``rank0.safetensors``; every tensor must be used exactly as often as it is there."""

    def __init__(self, directory):
        self.config = json.loads((directory / "config.json").read_text())
        with safe_open(str(directory / "rank0.safetensors"), framework="pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.unread = set(self.tensors)

    def weight(self, module, *shape):
        name = f"{module}.weight"
        tensor = self.tensors[name]
        assert tuple(tensor.shape) == shape, f"{name} is {tuple(tensor.shape)}, not {shape}"
        assert tensor.dtype == getattr(torch, self.config["dtype"]), f"{name} is {tensor.dtype}"
        self.unread.discard(name)
        return tensor.float()

    def linear(self, module, outputs, inputs):
        """The matrix [outputs, inputs] that the built engine would multiply with."""
        matrix = self.weight(module, outputs, inputs)
        quantization = self.config["quantization"]
        if quantization["quant_algo"] is None:
            return matrix
        assert quantization["quant_algo"] == "W8A16"
        if any(fnmatch(module, pattern) for pattern in quantization["exclude_modules"]):
            return matrix
        # The module pass makes a quantised layer of everything that is not excluded, and its scale exists only
        # for the five kinds that the loader quantises.
        assert module.rsplit(".", 1)[-1] in QUANTISED_ON_LOAD, f"{module} would miss its scale"
        # One scale per output, kept in the model's dtype; the largest positive weights are clipped.
        scale = matrix.abs().amax(dim=1, keepdim=True) / -INT8_MIN
        kept = scale.to(getattr(torch, self.config["dtype"])).float()
        return (matrix / scale).round().clamp(INT8_MIN, INT8_MAX) * kept


def rms_norm(x, weight, eps):
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


def rotate(x, base, dim):
    """rope_gpt_neox: component j turns with component j + dim / 2. ``x`` is [heads, positions, head size]."""
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    angles = positions[:, None] / base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x[..., : dim // 2], x[..., dim // 2 : dim]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def attention(checkpoint, layer, x):
    c = checkpoint.config
    heads, kv_heads, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_size"]
    assert c["position_embedding_type"] == "rope_gpt_neox" and c["rotary_embedding_dim"] == size
    assert c["rotary_scaling"] is None and not c["attn_bias"] and len(x) <= c["max_position_embeddings"]
    qkv = x @ checkpoint.linear(f"{layer}.attention.qkv", (heads + 2 * kv_heads) * size, c["hidden_size"]).T
    q, k, v = qkv.view(len(x), -1, size).transpose(0, 1).split([heads, kv_heads, kv_heads])
    if c["qwen_type"] == "qwen3":
        q = rms_norm(q, checkpoint.weight(f"{layer}.attention.q_layernorm", size), c["norm_epsilon"])
        k = rms_norm(k, checkpoint.weight(f"{layer}.attention.k_layernorm", size), c["norm_epsilon"])
    q, k = (rotate(t, c["rotary_base"], size) for t in (q, k))
    k, v = (t.repeat_interleave(heads // kv_heads, dim=0) for t in (k, v))
    scores = q @ k.transpose(1, 2) / size**0.5
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ v
    mixed = mixed.transpose(0, 1).reshape(len(x), heads * size)
    return mixed @ checkpoint.linear(f"{layer}.attention.dense", c["hidden_size"], heads * size).T


def mlp(checkpoint, layer, x):
    """The gated MLP of the library: ``fc`` goes through the activation and ``gate`` multiplies it."""
    c = checkpoint.config
    assert c["hidden_act"] == "silu" and not c["mlp_bias"]
    wide = (c["intermediate_size"], c["hidden_size"])
    fc = x @ checkpoint.linear(f"{layer}.mlp.fc", *wide).T
    gate = x @ checkpoint.linear(f"{layer}.mlp.gate", *wide).T
    return (fc * fc.sigmoid() * gate) @ checkpoint.linear(f"{layer}.mlp.proj", *wide[::-1]).T


def interpret(directory, inputs_embeds):
    """[rows, hidden] float32 in; hidden states [rows, hidden] and logits [rows, vocabulary] of all rows out."""
    checkpoint = Checkpoint(directory)
    c = checkpoint.config
    assert c["architecture"] == "Qwen3ForCausalLM" and c["mapping"]["world_size"] == c["mapping"]["tp_size"] == 1
    hidden, eps = c["hidden_size"], c["norm_epsilon"]
    x = inputs_embeds
    for i in range(c["num_hidden_layers"]):
        layer = f"layers.{i}"
        x = x + attention(checkpoint, layer, rms_norm(x, checkpoint.weight(f"{layer}.input_layernorm", hidden), eps))
        x = x + mlp(checkpoint, layer, rms_norm(x, checkpoint.weight(f"{layer}.post_layernorm", hidden), eps))
    x = rms_norm(x, checkpoint.weight("ln_f", hidden), eps)
    last = x
    if c["output_matching_size"]:
        last = last @ checkpoint.linear("output_matching", c["output_matching_size"], hidden).T
    logits = last @ checkpoint.linear("lm_head", c["vocab_size"], last.shape[1]).T
    assert not checkpoint.unread, f"never read: {sorted(checkpoint.unread)}"
    return x, logits
