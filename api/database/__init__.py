"""The tables of the service and how they came to be what they are."""
