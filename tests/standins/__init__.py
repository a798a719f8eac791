"""Real HTTP servers on loopback that stand in for the services that Archwright calls."""
