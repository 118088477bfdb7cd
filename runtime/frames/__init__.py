"""Frames whose every decision is made on the device, so that the host is never waited for."""
