"""What `benchmarks/gpu.py --all` measures, within a limit of time."""
