"""Small model repositories for tests of the server and the client: the public protocol, no model behind it.

The stub obeys a JSON script in the input `text`, for example `{"chunks": 3, "delay_s": 0.01}`; see
`stub_model.py`, which is copied into the repository as `model.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

QUICK = ("--no-verify", "--poll=0.05", "--drain=5", "--backoff=0.1")  # options of the supervisor for tests

PUBLIC_CONFIG = """backend: "python"
instance_group [ { kind: KIND_CPU count: 1 } ]
model_transaction_policy { decoupled: true }
model_warmup [
  {
    name: "hello"
    batch_size: 1
    inputs { key: "warmup_tokens" value { data_type: TYPE_INT32 dims: [ 1 ] zero_data: true } }
  }
]
"""


def make_stub_repository(out: Path) -> Path:
    """Writes a rendered folder whose only model is a stub of `fun_audio_chat`; returns the folder."""
    model = out / "model_repository" / "fun_audio_chat"
    (model / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stub_model.py"), model / "1" / "model.py")
    (model / "config.pbtxt").write_text(PUBLIC_CONFIG)
    (out / "options.json").write_text(json.dumps({"threads": 1, "target": "cpu"}))
    return out
