"""Prefect's side of the project: services, deployments, and the flows that drive the DVC graph."""
