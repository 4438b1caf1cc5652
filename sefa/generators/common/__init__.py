"""Code shared by several families: the mapping network, class labels, filters, progressive growing."""
