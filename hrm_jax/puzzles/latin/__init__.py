"""Latin squares to be completed."""
