"""What only the benchmarks need: reading compiled programs, and scoring text by counting."""
