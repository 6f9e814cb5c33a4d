"""How a run is described and recorded: config, flags, rows, the run directory."""
