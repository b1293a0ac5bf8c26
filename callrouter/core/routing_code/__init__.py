"""The routing as one text that people write: read with places, compared, written, checked."""
