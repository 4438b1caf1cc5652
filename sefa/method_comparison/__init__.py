"""Methods side by side on one generator."""
