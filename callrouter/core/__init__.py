"""The deciding half: values in, values out. No I/O, no clock, no randomness; all is handed in, ``now`` included."""
