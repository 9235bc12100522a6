"""
What an operator touches: configuration, runs, the CLI, the embedded stack, and the wiring of the other four packages.
"""
