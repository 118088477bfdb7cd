"""What breaks inside the models of a faulty copy (see ``faulty_copy``). Runs in Triton's stubs, never in production.

Each model obeys the file ``run/fault_<model>``, a JSON object: ``mode`` says what goes wrong, ``length`` picks the
request by its clip (encoders). Flow and vocoder pick the first stream of the first call that they see with the order
and stay with it. The file disappears when a fault that happens once has happened.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from runtime.contracts import ChunkFlag
from runtime.families.fun_audio_chat.answer import Answer

for_ever = 3600.0
ENDLESS_FROM = 300  # answers that may be so long do not stop by themselves


class Order:
    def __init__(self, file):
        self.file, self.stream = file, None

    def read(self):
        try:
            return json.loads(self.file.read_text())
        except (FileNotFoundError, ValueError):
            self.stream = None
            return None

    def done(self):
        self.file.unlink(missing_ok=True)


def arm(model, name, file, module):
    """Puts faults into an initialised model; ``module`` are the globals of its model.py."""
    {
        "log_mel": _arm_log_mel,
        "audio_encoder": _arm_encoder,
        "flow": _arm_flow,
        "vocoder": _arm_vocoder,
        "fun_audio_chat": _arm_chat,
    }[name](model, Order(file), module)


def _guilty_clip(order, lengths):
    given = order.read()
    if given is None or ("length" in given and given["length"] not in lengths.tolist()):
        return None
    if given["mode"] == "hang":
        time.sleep(for_ever)
    return given


def _arm_log_mel(model, order, module):
    real = module["log_mel_batch"]

    def log_mel_batch(arrays, features):
        if _guilty_clip(order, arrays["audio_lengths"]):
            raise ValueError(f"injected: {arrays['audio'][:4]}")
        return real(arrays, features)

    module["log_mel_batch"] = log_mel_batch


def _arm_encoder(model, order, module):
    real = model._stage.run

    def run(arrays):
        given = _guilty_clip(order, arrays["speech_frames"])
        if given and given["mode"] == "raise":
            raise ValueError(f"injected: {arrays['mel'][:1]}")
        found = real(arrays)
        if given:
            found["audio_embeds"][:] = np.nan
        return found

    model._stage.run = run


def _pick(order, arrays):
    """Whether there is an order; remembers its stream."""
    given = order.read()
    if given is not None and order.stream is None:
        # One that begins now: what an earlier test left may be released in the same call.
        new = [i for i, flag in zip(arrays["stream_ids"], arrays["chunk_flags"], strict=True) if flag & ChunkFlag.START]
        order.stream = int(new[0]) if new else None
    if given is not None and given["mode"] == "hang":
        time.sleep(for_ever)
    if given is not None and given["mode"] == "always":
        raise ValueError("injected")
    return given


def _arm_flow(model, order, module):
    stage, now = model._stage, {"order": None, "rows": [], "step": 0}
    run, render, step = stage.run, stage._render, stage._step

    def faulty_run(arrays):
        now["order"] = _pick(order, arrays)
        return run(arrays)

    def faulty_render(pieces):
        guilty = stage.states.get(order.stream) if now["order"] else None
        now["rows"] = [i for i, p in enumerate(pieces) if guilty is not None and p.rendering.state is guilty]
        now["step"] = 0
        render(pieces)

    def faulty_step(arrays):
        found = step(arrays)
        now["step"] += 1
        mode = now["order"]["mode"] if now["rows"] else ""
        if mode == "raise" or (mode == "late" and now["step"] == 2):
            raise ValueError("injected")
        if mode == "nan":
            found["next"][now["rows"]] = np.nan
            found["keys_values"][:, now["rows"]] = np.nan
        return found

    stage.run, stage._render, stage._step = faulty_run, faulty_render, faulty_step


def _arm_vocoder(model, order, module):
    stage, now = model._stage, {"order": None, "rows": []}
    run, inputs, graph = stage.run, stage._inputs, stage._graph

    def faulty_run(arrays):
        now["order"] = _pick(order, arrays)
        return run(arrays)

    def faulty_inputs(rows):
        guilty = stage.states.get(order.stream) if now["order"] else None
        now["rows"] = [i for i, (state, _) in enumerate(rows) if guilty is not None and state is guilty]
        return inputs(rows)

    def faulty_graph(arrays):
        if now["rows"] and now["order"]["mode"] == "raise":
            raise ValueError("injected")
        found = graph(arrays)
        if now["rows"]:
            found["audio"][now["rows"]] = np.nan
        return found

    stage.run, stage._inputs, stage._graph = faulty_run, faulty_inputs, faulty_graph


def _arm_chat(model, order, module):
    import threading

    from runtime.tritonserver.chat_model import TritonSender

    service = model.chat.service
    loop = service.loop_thread.loop

    def once(*modes):
        given = order.read()
        if given is None or given["mode"] not in modes:
            return False
        order.done()
        return True

    def poison(engine, mode):
        run = engine.run

        def faulty_run(inputs, bindings):
            if once(mode):
                inputs = inputs.clone()
                inputs[-1] = float("nan")  # the last row is of the stream that came last
            return run(inputs, bindings)

        engine.run = faulty_run

    pb_utils = module["pb_utils"]
    response = pb_utils.InferenceResponse

    def full_memory(*args, **kwargs):
        given = order.read()
        if given is not None and given["mode"] == "no memory":
            raise pb_utils.TritonModelException("Failed to increase the shared memory pool size (injected)")
        return response(*args, **kwargs)

    pb_utils.InferenceResponse = full_memory
    fail, send, closed = TritonSender.fail, TritonSender.send, []

    def lost_end(sender, error):
        if any(sender is other for other in closed):
            raise pb_utils.TritonModelException("Unable to send response. Response sender has been closed. (injected)")
        if once("end lost"):
            closed.append(sender)
            raise pb_utils.TritonModelException("Failed to increase the shared memory pool size (injected)")
        fail(sender, error)

    def faulty_send(sender, arrays, final):
        if once("response raises"):
            raise IndexError("injected")
        send(sender, arrays, final)

    TritonSender.fail, TritonSender.send = lost_end, faulty_send
    finish = Answer._finish

    def late_finish(self, text_id):
        endless = self.params.max_tokens >= ENDLESS_FROM and self.forwards < self.params.max_tokens
        return "" if endless else finish(self, text_id)

    Answer._finish = late_finish
    for engine, fault in zip(loop.model.engines, ("nan backbone", "nan speech"), strict=True):
        poison(engine, fault)
    step = loop.step

    def faulty_step():
        if once("step raises"):
            raise ValueError("injected")
        if once("step hangs"):
            time.sleep(for_ever)
        return step()

    loop.step = faulty_step

    def wait():
        while True:
            time.sleep(0.02)
            if once("asyncio thread ends"):
                service.thread.loop.call_soon_threadsafe(sys.exit)
            if once("asyncio thread hangs"):
                service.thread.loop.call_soon_threadsafe(time.sleep, for_ever)

    threading.Thread(target=wait, daemon=True).start()
