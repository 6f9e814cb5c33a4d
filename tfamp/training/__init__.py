"""How a run proceeds: optimizer, loops, telemetry, and the run as a whole."""
