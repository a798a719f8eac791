"""Checks documents like code: pure functions from text to findings."""
