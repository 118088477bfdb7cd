"""API keys tell requests apart; they check nothing: who may call at all is the token's matter.

A key is kept and shown as a hash only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from client.protocol.wire import KEY_HEADER
from runtime.errors import InvalidRequest

NO_KEY = "requests without a key"
SHOWN_DIGITS = 8  # of the hash; enough to tell keys apart in a message


def key_name(parameters: Mapping[str, Any]) -> str:
    """Words for the key of a request that tell it from others and do not give it away.

    Raises:
        InvalidRequest: two keys; the one of the proxy cannot be told from one that the client made up.
    """
    keys = [str(value) for name, value in parameters.items() if name.lower() == KEY_HEADER]
    if len(keys) > 1:
        raise InvalidRequest(KEY_HEADER, f"is given {len(keys)} times", "send it once, as a header")
    key = "".join(keys)
    if not key:
        return NO_KEY
    return f"requests with key #{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:SHOWN_DIGITS]}"
