"""Small worlds and the questions that are asked about them."""
