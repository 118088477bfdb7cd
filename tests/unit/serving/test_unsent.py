"""Ends of answers that memory has no room for are sent later; those beyond help are known."""

import numpy as np

from runtime.serving.unsent import SENDER_CLOSED, RetryingSender, UnsentResponses

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
    unsent, sender = UnsentResponses(), Sender()
    RetryingSender(sender, unsent).fail(ValueError())
    assert not unsent.retry() and (len(unsent), sender.ended) == (1, 0)
    sender.room = True
    assert not unsent.retry() and (len(unsent), sender.ended) == (0, 1)


def test_an_end_whose_client_is_gone_is_forgotten():
    unsent, sender = UnsentResponses(), Sender()
    RetryingSender(sender, unsent).close()
    sender.gone = True
    assert not unsent.retry() and not len(unsent)


def test_an_end_that_can_never_be_sent_is_reported_once():
    unsent, sender, other = UnsentResponses(), Sender(closes=True), Sender()
    RetryingSender(sender, unsent).fail(ValueError())
    RetryingSender(other, unsent).fail(ValueError())
    sender.room = True
    assert unsent.retry(), "Triton closed the sender, so its client would wait for ever"
    assert not unsent.retry() and len(unsent) == 1
    assert not np.any(sender.ended)
