"""What the Triton models import: configuration, frontend, engines, the frame loop, token2wav."""
