"""Speech tokens (25 Hz) to 24 kHz sound: flow matching to mel, then a HiFT vocoder."""
