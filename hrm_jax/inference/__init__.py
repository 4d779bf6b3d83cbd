"""Using what was learnt."""
