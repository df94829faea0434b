"""`specee-chat bench`: policies against dense."""
