"""Which streams run in a step: slots, cache blocks, order of admission. Plain Python, knows no model."""
