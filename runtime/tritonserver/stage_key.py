"""The key that a stage model asks of its callers: only the public model has it.

Every model of a repository can be asked by every client, and Triton's restrictions know no models. A stage takes
no limits and keeps the state of all streams under ids that can be guessed. So the supervisor gives each run of the
server a key, in an environment that only the server's own user can read, and stages answer no call without it.
"""

from __future__ import annotations

import hmac
import json
import os

from runtime.errors import InvalidRequest

KEY_VARIABLE = "FUN_AUDIO_CHAT_STAGE_KEY"
KEY_PARAMETER = "stage_key"


def stage_parameters() -> dict[str, str]:
    """What the public model adds to its calls; nothing where a server was started without a supervisor."""
    key = os.environ.get(KEY_VARIABLE)
    return {KEY_PARAMETER: key} if key else {}


def check_stage_key(parameters: str, model: str) -> None:
    """Raises InvalidRequest unless the key is among the JSON parameters of a stage's request."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return
    given = str(json.loads(parameters or "{}").get(KEY_PARAMETER, ""))
    if not hmac.compare_digest(given.encode(), key.encode()):
        raise InvalidRequest("model", f"{model} is a stage of another model", "ask fun_audio_chat")
