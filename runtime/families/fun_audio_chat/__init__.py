"""TODO runtime/families/fun_audio_chat."""
