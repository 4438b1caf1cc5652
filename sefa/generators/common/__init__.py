"""What several families share: the mapping network, class labels, filters, growing."""
