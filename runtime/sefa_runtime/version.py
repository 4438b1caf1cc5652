"""The version of the distribution; the build reads it, too."""

VERSION = "0.1.0"
__version__ = VERSION
