"""Reading pickles without running anything in them, with numpy alone: files of codes here, checkpoints in `sefa`."""
