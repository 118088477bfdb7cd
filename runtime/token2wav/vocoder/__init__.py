"""TODO runtime/token2wav/vocoder."""
