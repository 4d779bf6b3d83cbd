"""Dominoes: the game, positions as tokens, generator, scores, players and data sets."""
