"""A draft head that a model trains for itself: it talks to itself, and the head learns from what it computed."""
