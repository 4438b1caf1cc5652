"""The commands, one per file: parse, call the library, print."""
