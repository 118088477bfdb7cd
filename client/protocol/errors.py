"""The form of an error on the wire: ``CODE: field: what is wrong; what to do about it``.

gRPC loses the status code of an error inside a stream, so the code is the first word of the message.
"""

from __future__ import annotations

import re

# Names are those of triton_python_backend_utils.TritonError and of gRPC's StatusCode.
CODES = ("INVALID_ARG", "NOT_FOUND", "UNAVAILABLE", "CANCELLED", "INTERNAL")
CODED = re.compile(rf"(?P<code>{'|'.join(CODES)}): (?P<field>[^:]+): (?P<rest>.*)$", re.S)
RETRY_HINT = re.compile(r"retry in (?P<seconds>\d+\.\d) s$")  # how a refusal says when to come back
MEMORY_FULL = "shared memory pool"  # in Triton's words for it, which name regions and paths


class CodedError(Exception):
    """Base of the errors of both ends, whose text has that form."""
