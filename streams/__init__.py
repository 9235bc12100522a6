"""
Topics → effects: the Faust apps, the slice transport, lanes, the delivery core, producers, lag and replay.

The only package (with the embedded broker) that knows Kafka and Faust.
"""
