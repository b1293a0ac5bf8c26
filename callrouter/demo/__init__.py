"""The demonstration: a small believable business, and real calls to it from a simulated carrier."""
