"""What our service stands beside: each an app of its own, in a process of its own."""
