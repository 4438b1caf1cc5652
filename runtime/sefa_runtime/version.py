"""The version of the distribution; read by the build as well."""

VERSION = "0.1.0"
__version__ = VERSION
