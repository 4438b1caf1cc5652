"""A safe reader of pickles, which runs nothing in them and needs only NumPy: for files of codes and for checkpoints."""
