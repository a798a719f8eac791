"""Who is calling, and what they may do: decided anew on each request."""
