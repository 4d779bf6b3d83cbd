"""ARC: tasks of a few demonstrations on grids of up to 30×30 cells in ten colours."""
