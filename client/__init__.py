"""Streaming client of the ``fun_audio_chat`` model."""
