"""The pipeline: a program that yields typed events and knows nothing of HTTP."""
