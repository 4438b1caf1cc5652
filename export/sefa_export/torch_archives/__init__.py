"""Export to torch's own archives: TorchScript and .pt2, checked in a process that imports only torch."""
