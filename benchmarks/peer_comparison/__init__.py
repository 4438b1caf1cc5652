"""Other people's generators beside ours: see benchmarks/peers.py."""
