"""
What flows: events, payments, money, topics, letters, checkpoints, errors. Pure values; pydantic and the standard
library only.
"""
