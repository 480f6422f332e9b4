"""What is run by hand and by CI beside the tests: benchmarks, mutants, soak and stress."""
