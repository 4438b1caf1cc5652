"""Files written by NVlabs' PyTorch code and its descendants."""
