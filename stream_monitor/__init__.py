"""
Streaming monitor for machine-learning models: Kafka in, gauges and alerts out, within seconds.
"""

__version__ = "0.1.0"
