"""The steps of the pipeline, one async function a file."""
