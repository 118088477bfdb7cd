"""TODO runtime/token2wav/flow."""
