"""Ways to decode: policies that yield work and token events, and the driver that runs them."""
