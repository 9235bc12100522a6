"""The seeds' families of routes, word for word."""
