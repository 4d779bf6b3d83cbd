"""Mazes: boards, shortest paths, symmetries, generator, files, data sets and scores."""
