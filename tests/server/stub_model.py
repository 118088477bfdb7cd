"""`model.py` of the stub: answers by the script in `text`, keeps the control files like the real model.

Keys of the script: `chunks` (answers), `delay_s` (before each), `samples` (per chunk), `error` (class name
in `runtime.errors`, sent after `error_after` chunks), `die` (ends the process), `freeze` (heartbeat stops),
`empty_end` (no outputs with the final flag), `refuse` (so many requests with this `key` get Overloaded first),
`lose_at` (the process ends before this chunk, once for each `key`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from client.protocol.tensors import FUN_AUDIO_CHAT
from runtime import errors
from runtime.tritonserver import backend as pb

HEARTBEAT_S = 0.2


class TritonPythonModel:
    """Decoupled: one thread per request."""

    @staticmethod
    def auto_complete_config(config):
        return pb.auto_complete(config, FUN_AUDIO_CHAT)

    def initialize(self, args):
        self.run = Path(pb.built_folder(args)) / "run"
        self.frozen = False
        self.lock = threading.Lock()
        self.live = 0
        self.stopping = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def finalize(self):
        self.stopping.set()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self._answer, args=(request,), daemon=True).start()

    def _beat(self):
        while not self.stopping.wait(HEARTBEAT_S):
            if not self.frozen:
                (self.run / "heartbeat").touch()
            if (self.run / "drain").exists():
                self._count(0)

    def _count(self, step):
        with self.lock:
            self.live += step
            (self.run / "live").write_text(str(self.live))

    def _answer(self, request):
        sender = request.get_response_sender()
        self._count(1)
        try:
            self._play(request, sender)
        except errors.ServeError as error:
            sender.send(pb.fail(pb_utils, error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            self._count(-1)

    def _play(self, request, sender):
        given = pb.inputs(request, FUN_AUDIO_CHAT)
        script = json.loads(given["text"][0]) if "text" in given else {}
        if (self.run / "drain").exists():
            raise errors.Overloaded("server", "is stopping", "retry in a minute")
        if "die" in script:
            os._exit(9)
        self._fail_first(script)
        self.frozen = self.frozen or "freeze" in script
        chunks = script.get("chunks", 1)
        for index in range(chunks):
            time.sleep(script.get("delay_s", 0.0))
            if sender.is_cancelled():
                (self.run / "cancelled").write_text(str(index))
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                return
            if index == script.get("lose_at") and self._first_times(script) == 1:
                os._exit(9)
            if "error" in script and index == script.get("error_after", 0):
                raise getattr(errors, script["error"])("audio", "is a stub's", "do nothing")
            last = index == chunks - 1
            final = last and "empty_end" not in script
            flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
            sender.send(self._response(request, given, index, last, script), flags=flags)
        if "empty_end" in script:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _fail_first(self, script):
        if "refuse" in script and self._first_times(script) <= script["refuse"]:
            raise errors.Overloaded("server", "is full for now", "retry in a moment")

    def _first_times(self, script):
        """How often a request with this key came, this one included; outlives this process."""
        with self.lock:
            path = self.run / f"count_{script['key']}"
            count = int(path.read_text()) + 1 if path.exists() else 1
            path.write_text(str(count))
            return count

    def _response(self, request, given, index, last, script):
        stats = {"parameters": json.loads(request.parameters() or "{}"), "clips": _facts(given)}
        arrays = {
            "text": np.array([f"ä{index} ".encode()], dtype=object),
            "audio": np.full(script.get("samples", 480), index / 10, np.float32),
            "finish_reason": np.array([b"stop" if last else b""], dtype=object),
            "text_token_ids": np.array([index], np.int32),
            "speech_token_ids": np.array([index] * 5, np.int32),
            "stats": np.array([json.dumps(stats).encode() if last else b""], dtype=object),
        }
        wanted = set(request.requested_output_names())
        return pb.respond(pb_utils, FUN_AUDIO_CHAT, {name: value for name, value in arrays.items() if name in wanted})


def _facts(given):
    lengths = given.get("audio_lengths")
    return {
        "samples": int(given["audio"].size) if "audio" in given else None,
        "lengths": None if lengths is None else lengths.tolist(),
        "messages": given["messages"][0].decode() if "messages" in given else None,
    }
