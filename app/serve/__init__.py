"""An HTTP server for other programs."""
