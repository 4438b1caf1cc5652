"""Collections of many architectures in the same style: residual blocks of batch norms, for small images."""
