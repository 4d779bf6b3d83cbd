"""What puzzles share in which no digit may stand twice in a unit: boards, exact solver, frame."""
