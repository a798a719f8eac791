"""The run engine: a run is a thing of its own, and any number of readers follow it."""
