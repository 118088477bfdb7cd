"""What a running server and its supervisor tell each other through small files (``runtime.server.control``)."""

from __future__ import annotations

from pathlib import Path

RUN_FOLDER = "run"


class RunFiles:
    """The model's side of the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shown = -1
        folder.mkdir(exist_ok=True)

    @property
    def heartbeat(self) -> Path:
        """The frame loop touches it."""
        return self._folder / "heartbeat"

    @property
    def draining(self) -> bool:
        """Whether new requests are to be refused."""
        return (self._folder / "drain").exists()

    def show_live(self, live: int) -> None:
        """Writes the number of live requests; a drain believes fresh counts only, so during one at every call."""
        if live == self._shown and not self.draining:
            return
        self._shown = live
        new = self._folder / "live.new"
        new.write_text(str(live))
        new.replace(self._folder / "live")
