"""What streaming costs: our service beside its peers and two floors; `make bench` runs it."""
