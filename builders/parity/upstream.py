"""Records greedy runs of the authors' code, in their environment.

    python upstream.py --upstream CLONE --model DIR --out DIR [--audio FILE]

Needs what the authors' code needs and nothing of this project. Writes the format that ``vectors.py`` reads:
questions with their sound, prompts, audio rows, ids, and hidden states and best logits of the first steps, taken
with forward hooks. Names are those of their commit 8ba984b (reference, sections 1 and 2). Their ``_sample`` and
``forward`` need the transformers that they ask for, 4.52.3: 4.57 calls both with other arguments. Not yet run with
the released weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS, TOP, TOKENS = 13, 10, 60
RATE, SECONDS = 16000, 2.7
AUDIO_TURN = "<|audio_bos|><|AUDIO|><|audio_eos|>"
CLIP = "question"
QUESTIONS = {
    "s2s_text": ("s2s", "Tell me about the river."),
    "s2t_text": ("s2t", "Name three colours."),
    "s2s_spoken": ("s2s", AUDIO_TURN),
    "s2t_spoken": ("s2t", AUDIO_TURN + "\nWhat do you hear?"),
}
SYSTEMS = {
    "s2s": "You are asked to generate both text and speech tokens at the same time.",
    "s2t": "You are asked to generate text tokens.",
}


class Taps:
    """What the modules gave, call by call: last rows only."""

    def __init__(self, model: Any) -> None:
        self.rows: dict[str, list[np.ndarray]] = {}
        self._hooks = [
            self._hook("hidden", model.language_model.model.norm),
            self._hook("logits", model.language_model.lm_head),
            self._hook("codes", model.audio_invert_tower.lm_head),
            # Its first call of a spoken question is the question's own.
            model.audio_tower.register_forward_hook(self._keep_sound),
        ]
        self.sound: np.ndarray | None = None

    def _keep_sound(self, module: Any, inputs: Any, output: Any) -> None:
        if self.sound is None:
            self.sound = plain(output[0])[0]

    def _hook(self, name: str, module: Any) -> Any:
        rows = self.rows.setdefault(name, [])

        def keep(module: Any, inputs: Any, output: Any) -> None:
            rows.append(plain(output).reshape(-1, output.shape[-1])[-1])

        return module.register_forward_hook(keep)

    def close(self) -> None:
        """Takes the hooks off."""
        for hook in self._hooks:
            hook.remove()


def plain(tensor: Any) -> np.ndarray:
    """As float32 on the host."""
    return tensor.detach().float().cpu().numpy()


def voice() -> np.ndarray:
    """Speech-like sound [samples] float32: harmonics of a gliding pitch in syllables."""
    t = np.arange(int(RATE * SECONDS)) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.1 * tone * np.sin(np.pi * 3.5 * t) ** 2).astype(np.float32)


def best(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and values of the highest logits of each row."""
    ids = np.stack([np.argsort(-row)[:TOP] for row in rows])
    return ids, np.stack([row[i] for row, i in zip(rows, ids, strict=True)])


def record(
    model: Any, processor: Any, mode: str, question: str, clip: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """One greedy run as arrays and as its entry of the manifest."""
    import torch

    turns = [{"role": "system", "content": SYSTEMS[mode]}, {"role": "user", "content": question}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    speaks, spoken = mode == "s2s", AUDIO_TURN in question
    sound = {"audio": [clip]} if spoken else {}
    inputs = processor(text=text, **sound, return_tensors="pt", return_token_type_ids=False).to(model.device)
    model.sp_gen_kwargs.update(
        {"text_greedy": True, "disable_speech": not speaks, "force_text_abos": speaks, "only_crq_sampling": True}
    )
    taps = Taps(model)
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, top_k=0, repetition_penalty=1.0)
    taps.close()
    ids, codes = made if isinstance(made, tuple) else (made, None)
    prompt = inputs.input_ids[0].cpu().numpy()
    arrays = {
        "prompt_ids": prompt,
        "text_ids": ids[0, len(prompt) :].cpu().numpy(),
        "speech_ids": np.zeros(0, np.int64) if codes is None else codes[0].cpu().numpy(),
        "backbone_hidden_last": np.stack(taps.rows["hidden"][:STEPS]),
    }
    if taps.sound is not None and spoken:
        arrays["audio_rows"] = taps.sound[: int((prompt == model.config.audio_token_index).sum())]
    arrays["text_logits_top10_ids"], arrays["text_logits_top10"] = best(taps.rows["logits"][:STEPS])
    if speaks:
        steps = len(taps.rows["codes"]) // 5
        raw = np.array([int(row.argmax()) for row in taps.rows["codes"][: 5 * steps]]).reshape(steps, 5)
        chosen, values = best(taps.rows["codes"][: 5 * min(STEPS, steps)])
        arrays |= {"srh_tokens_raw": raw, "srh_logits_top10_ids": chosen.reshape(-1, 5, TOP)}
        arrays["srh_logits_top10"] = values.reshape(-1, 5, TOP)
    case = {
        "mode": mode, "do_sample": False, "text_greedy": True, "force_text_abos": speaks,
        "repetition_penalty": 1.0, "bad_words_ids": None, "max_new_tokens": TOKENS,
        "conversation": turns, "wavs": [CLIP] if spoken else [],
    }  # fmt: skip
    return arrays, case


def main() -> int:
    """Writes all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=Path, required=True, help="clone of the authors' code")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--audio", type=Path, help="a spoken question instead of a synthesised one")
    parser.add_argument("--dtype", default="float32", help="float32 on both sides tells code from rounding")
    given = parser.parse_args()
    sys.path.insert(0, str(given.upstream))
    import librosa
    import soundfile
    import torch
    from funaudiochat.register import register_funaudiochat
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoProcessor

    register_funaudiochat()
    config = AutoConfig.from_pretrained(given.model)
    # Otherwise the speech head stays in the type that its section of config.json names.
    config.audio_config.crq_transformer_config["torch_dtype"] = given.dtype
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForSeq2SeqLM.from_pretrained(given.model, config=config, torch_dtype=getattr(torch, given.dtype))
    model = model.eval().to(device)
    processor = AutoProcessor.from_pretrained(given.model)
    clip = voice() if given.audio is None else librosa.load(given.audio, sr=RATE)[0]
    (given.out / "audio").mkdir(parents=True, exist_ok=True)
    soundfile.write(given.out / "audio" / f"{CLIP}.wav", clip, RATE, subtype="FLOAT")
    cases = {}
    for name, (mode, question) in QUESTIONS.items():
        arrays, cases[name] = record(model, processor, mode, question, clip)
        np.savez(given.out / f"run_{name}.npz", **arrays)
        print(f"{name}: {len(arrays['text_ids'])} text ids, {len(arrays['speech_ids'])} codes")
    (given.out / "manifest.json").write_text(json.dumps({"cases": cases, "dtype": given.dtype}) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
