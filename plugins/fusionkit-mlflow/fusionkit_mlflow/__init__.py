"""Logs the runs of fusionkit to MLflow."""
