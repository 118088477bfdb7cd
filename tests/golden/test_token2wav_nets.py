"""Flow and vocoder in torch against the authors' code: whole cases, and what lies inside."""

import numpy as np
import pytest
import token2wav_data as data
import torch
import torch.nn.functional as F
from token2wav_data import close

from runtime.token2wav.flow.net import EulerStep, time_grid
from runtime.token2wav.flow.past import Past, additive, visible_frames

pytestmark = pytest.mark.golden
FRAME, PITCH_LOOKAHEAD, DECODER_LOOKAHEAD, HELD_BACK = 480, 3, 4, 8
UNBOUNDED = torch.tensor([1 << 30])
MASKS = {"chunk": torch.tensor([50]), "full": UNBOUNDED}  # frames of a block


class Taps:
    """Outputs of inner modules of a run, by name."""

    def __init__(self, **modules):
        self.seen = {}
        self._hooks = [m.register_forward_hook(self._keep(name)) for name, m in modules.items()]

    def _keep(self, name):
        return lambda module, args, output: self.seen.__setitem__(name, output)

    def __enter__(self):
        return self.seen

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def no_past(frames, mask, rows=2):
    """A stream from its first frame on; ``rows`` of the net."""
    config = data.nets().config.flow
    own = torch.arange(frames)[None]
    visible = visible_frames(own, torch.tensor([frames]), torch.zeros(1, 0, dtype=torch.int64), MASKS[mask], UNBOUNDED)
    return Past(
        positions=own.expand(rows, -1),
        mask=additive(visible).expand(rows, -1, -1, -1),
        tails=torch.zeros(rows, 2, config.dim, 30),
        kept=torch.zeros(rows, dtype=torch.int64),
        layers=lambda _: torch.zeros(rows, 2, config.heads, 0, config.head_dim),
    )


def conditioning(name, final, prompt=()):
    """mu [1, 80, T] of a case: at its end, or with the last tokens only looked at."""
    flow, lookahead = data.nets().flow, data.nets().config.flow.lookahead
    ids = np.concatenate([np.array(prompt, np.int64), data.vectors()[f"{name}_tokens"]])
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    tokens, valid = F.pad(tokens, (2, 0)), F.pad(torch.ones(tokens.shape), (2, 0))
    if final:
        tokens, valid = F.pad(tokens, (0, lookahead)), F.pad(valid, (0, lookahead))
    return flow.condition(tokens, valid)


def solve(mu, mask, prompt_mel=None):
    """Mel [80, T] after all Euler steps."""
    nets = data.nets()
    frames = mu.shape[2]
    x, step = nets.mel_noise[None, :, :frames], EulerStep(nets.flow).eval()
    cond = torch.zeros_like(x)
    if prompt_mel is not None:
        cond[0, :, : len(prompt_mel)] = torch.from_numpy(prompt_mel).T
    speaker = nets.flow.project_speaker(nets.voice)
    for k in range(10):
        x, _, _ = step.advance(x, mu, speaker, cond, torch.tensor([k]), no_past(frames, mask))
    return x[0]


def test_time_grid():
    times, widths = time_grid()
    close(times, data.vectors()["t"], 0)
    close(widths, data.vectors()["dt"], 0)


def test_time_embedding():
    estimator = data.nets().flow.estimator
    with Taps(time=estimator.time_embed["time_mlp"]) as seen:
        estimator.modulations(time_grid()[0])
    close(seen["time"], data.internals()["time_embedding"], 1e-5)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("row", [0, 1])
def test_velocity_net_inside(mask, row):
    golden = data.internals()
    estimator = data.nets().flow.estimator
    x, mu, cond, speaker = (torch.from_numpy(golden[f"est_{n}"][row : row + 1]) for n in ("x", "mu", "cond", "spk"))
    parts = estimator.modulations(torch.from_numpy(golden["est_t"][row : row + 1]))[0]
    past = no_past(x.shape[2], mask, rows=1)
    embedded, _ = estimator.embed(x, mu, speaker, cond, past.tails, past.kept)
    close(embedded[0, ::8], golden["est_embed_every_8"][row], 1e-5)
    with Taps(first=estimator.blocks()[0], last=estimator.blocks()[-1]) as seen:
        velocity, _, _ = estimator(x, mu, speaker, cond, parts, past)
    close(seen["first"][0][0, ::8], golden[f"est_block0_{mask}_every_8"][row], 2e-5)
    close(seen["last"][0][0, ::8], golden[f"est_last_{mask}_every_8"][row], 2e-5)
    close(velocity[0, :, ::4], golden[f"est_out_{mask}_every_4"][row], 2e-5)


def test_conditioning():
    golden, nets = data.vectors(), data.nets()
    close(conditioning("T063", True)[0], golden["T063_mu_final"], 1e-4)
    close(conditioning("T063", False)[0], golden["T063_mu_part"], 1e-4)
    close(nets.flow.project_speaker(nets.voice)[0], golden["speaker_projected"], 1e-6)


@pytest.mark.parametrize(
    ("case", "mask", "final"),
    [
        ("T008", "chunk", True),
        ("T008", "chunk", False),
        ("T008", "full", True),
        ("T008", "full", False),
        ("T063", "chunk", True),
        ("T063", "full", False),
    ],
)
def test_mel(case, mask, final):
    end = "final" if final else "part"
    close(solve(conditioning(case, final), mask), data.vectors()[f"{case}_mel_{mask}_{end}"], 1e-4)


@pytest.mark.parametrize("mask", MASKS)
def test_mel_after_a_prompt(mask):
    golden = data.vectors()
    prompt_mel = golden["prompt_mel"]
    mel = solve(conditioning("T063", True, golden["prompt_tokens"]), mask, prompt_mel)[:, len(prompt_mel) :]
    close(mel[:, ::4], golden[f"T063_prompt_mel_{mask}_final_every_4"], 1e-4)


def test_vocoder_inside():
    golden, vocoder = data.internals(), data.nets().vocoder
    mel, source = torch.from_numpy(golden["voc_mel"])[None], torch.from_numpy(golden["voc_source"])[None, None]
    taps = {"conv_pre": vocoder.conv_pre, "conv_post": vocoder.conv_post}
    taps |= {f"up{i}": up for i, up in enumerate(vocoder.ups)}
    taps |= {f"src{i}": block for i, block in enumerate(vocoder.source_resblocks)}
    with Taps(**taps) as seen:
        sound = vocoder.decode(F.pad(mel, (0, DECODER_LOOKAHEAD)), source)
    close(vocoder.f0_predictor(F.pad(mel, (0, PITCH_LOOKAHEAD)))[0], golden["voc_f0"], 1e-3)
    for name in ("conv_pre", "up0", "src0"):
        close(seen[name][0], golden[f"voc_{name}"], 1e-5)
    for name in ("up1", "src1", "up2", "src2", "conv_post"):
        close(seen[name][0, :, ::8], golden[f"voc_{name}_every_8"], 1e-5)
    close(sound[0], golden["voc_wav"], 1e-5)


def test_spectrum_of_the_source():
    golden, vocoder = data.internals(), data.nets().vocoder
    source = F.pad(torch.from_numpy(golden["voc_source"])[None, None], (8, 8), mode="reflect")
    close(F.conv1d(source, vocoder.analysis, stride=4)[0, :, ::8], golden["voc_stft_every_8"], 1e-5)


def test_vocoder_stage_by_stage():
    golden, nets = data.vectors(), data.nets()
    mel = torch.from_numpy(golden["T028_mel_full_final"])[None]
    f0 = nets.vocoder.f0_predictor(F.pad(mel, (0, PITCH_LOOKAHEAD)))
    close(f0[0], golden["T028_f0_final"], 1e-3)
    uniform = nets.source_noise[None, : mel.shape[2] * FRAME]
    source = nets.vocoder.source(torch.from_numpy(golden["T028_f0_final"])[None], torch.zeros(1, 9), uniform)
    close(source[0, 0], golden["T028_source_final"], 1e-2)
    theirs = torch.from_numpy(golden["T028_source_final"])[None, None]
    sound = nets.vocoder.decode(F.pad(mel, (0, DECODER_LOOKAHEAD)), theirs)
    close(sound[0, ::8], golden["T028_wav_final_every_8"], 1e-5)


def test_vocoder_with_more_to_come():
    golden, nets = data.vectors(), data.nets()
    mel = torch.from_numpy(golden["T028_mel_full_final"])[None]
    frames = mel.shape[2]
    voiced = frames - PITCH_LOOKAHEAD
    uniform = nets.source_noise[None, : voiced * FRAME]
    lead, decoded, source = (torch.tensor([n]) for n in (0, voiced - DECODER_LOOKAHEAD, voiced))
    sound, _ = nets.vocoder(mel, mel[:, :, :voiced], torch.zeros(1, 9), uniform, lead, decoded, source)
    close(sound[0, : FRAME * (frames - HELD_BACK) : 8], golden["T028_wav_part_every_8"], 1e-3)
