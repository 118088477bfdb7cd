"""Ends of answers that memory has no room for are sent later; those beyond help are known."""

import numpy as np

from runtime.serving.unsent import SENDER_CLOSED, OwedReplies, SureReply

FULL = "Failed to increase the shared memory pool size"


class Sender:
    """Fails as Triton's does: closed by the attempt, or not, depending on where memory was missing."""

    def __init__(self, closes=False):
        self.room, self.closes, self.gone, self.ended, self._closed = False, closes, False, 0, False

    def send(self, arrays, final):
        raise AssertionError("only ends")

    def fail(self, error):
        if self._closed:
            raise RuntimeError(f"Unable to send response. {SENDER_CLOSED}.")
        if not self.room:
            self._closed = self.closes
            raise RuntimeError(FULL)
        self.ended += 1

    def close(self):
        self.fail(ValueError())

    def is_cancelled(self):
        return self.gone


def test_an_end_is_sent_when_there_is_room():
    owed, sender = OwedReplies(), Sender()
    SureReply(sender, owed).fail(ValueError())
    assert not owed.retry() and (len(owed), sender.ended) == (1, 0)
    sender.room = True
    assert not owed.retry() and (len(owed), sender.ended) == (0, 1)


def test_an_end_whose_client_is_gone_is_forgotten():
    owed, sender = OwedReplies(), Sender()
    SureReply(sender, owed).close()
    sender.gone = True
    assert not owed.retry() and not len(owed)


def test_an_end_that_can_never_be_sent_is_reported_once():
    owed, sender, other = OwedReplies(), Sender(closes=True), Sender()
    SureReply(sender, owed).fail(ValueError())
    SureReply(other, owed).fail(ValueError())
    sender.room = True
    assert owed.retry(), "Triton closed the sender, so its client would wait for ever"
    assert not owed.retry() and len(owed) == 1
    assert not np.any(sender.ended)
