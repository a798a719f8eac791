"""HTTP, SSE and SQL around the pipeline; knows LangGraph only through `graph.run`."""
