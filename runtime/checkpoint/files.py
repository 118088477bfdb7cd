"""Opening what people give: whatever goes wrong becomes one line that names the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from runtime.errors import BuildError

SHOWN = 120  # characters of a value or of a library's words in a message
LFS = b"version https://git-lfs"
AGAIN = "download the file again"
# The longest first: a mark of 32 bits begins like one of 16.
MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
PLAIN = "save it as plain UTF-8, without a byte order mark"


def one_line(text: str) -> str:
    """Text of any origin as part of a message: the first line of it that says something, printable and not long."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = "".join(c if c.isprintable() else "?" for c in lines[0]) if lines else ""
    return first if len(first) <= SHOWN else first[: SHOWN - 3] + "..."


def shown(value: object) -> str:
    """A value as part of a message."""
    return one_line(repr(value))


def reason(error: BaseException) -> str:
    """What an exception of any library says."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = one_line(str(error))
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


@contextmanager
def naming(field: str, remedy: str) -> Iterator[None]:
    """Turns whatever a library raises over a file into a BuildError of ``field``."""
    try:
        yield
    except (BuildError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # libraries in Rust panic outside of Exception
        raise BuildError(field, f"cannot be read ({reason(error)})", remedy) from None


def exists(path: Path, field: str = "") -> bool:
    """Whether something lies there. Raises BuildError when that cannot be known, or for a link to nothing."""
    with naming(field or one_line(path.name), "make its folder readable"):
        if path.is_symlink() and not path.exists():
            raise BuildError(field or one_line(path.name), "is a link to a file that is not there", AGAIN)
        return path.exists()


def is_pointer(path: Path) -> bool:
    """Whether only Git LFS's pointer lies where the file should."""
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def check_no_pointer(path: Path, field: str = "") -> None:
    """Raises BuildError for a pointer of Git LFS, or for a file that cannot be opened."""
    name = field or one_line(path.name)
    with naming(name, "make it a file that can be read"):
        found = is_pointer(path)
    if found:
        raise BuildError(name, "is only a pointer of Git LFS", "fetch the file itself: git lfs pull")


def read_text(path: Path, folder: str) -> str:
    """The UTF-8 text of a file.

    Args:
        folder: what to give when there is no such file.

    Raises:
        BuildError: it is not there, cannot be opened, or has another encoding.
    """
    name = one_line(path.name)
    if not exists(path):
        raise BuildError(name, f"not found in {path.parent}", f"give {folder}")
    check_no_pointer(path)
    with naming(name, "make it a file that can be read"):
        data = path.read_bytes()
    for mark, encoding in MARKS:
        if data.startswith(mark):
            raise BuildError(name, f"is {encoding}", PLAIN)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BuildError(name, f"is not UTF-8 (byte {data[error.start]:#04x} in line {line})", PLAIN) from None


def read_json(path: Path, folder: str) -> Any:
    """What a JSON file holds. Raises BuildError, also for a key that stands twice in one object."""
    text, name = read_text(path, folder), one_line(path.name)
    if text.startswith("\ufeff"):
        raise BuildError(name, "begins with a byte order mark", PLAIN)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(name, pairs))
    except (ValueError, RecursionError) as error:
        raise BuildError(name, f"is not JSON ({one_line(str(error))})", AGAIN) from None


def _object(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        _twice(name, [key for key, _ in pairs])
    return values


def _twice(name: str, keys: list[str]) -> NoReturn:
    twice = next(key for key in keys if keys.count(key) > 1)
    raise BuildError(f"{name}: {one_line(twice)}", "stands twice in one object", "remove one of them")
