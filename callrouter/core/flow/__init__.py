"""Flows: nodes, their text form, what is wrong with one, and how one is drawn."""
