"""
The HTTP API: requests in, one call of a service in `tillstream/control/`, answers out.

It keeps nothing of its own.
"""
