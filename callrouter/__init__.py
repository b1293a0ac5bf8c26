"""callrouter: a self-hosted call-tracking telephone server on Asterisk."""

__version__ = "0.1.0"
