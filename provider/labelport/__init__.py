"""Labelport: labeling tasks from object stores, annotations back into them, on Apache Airflow."""

__version__ = "0.1.0"
