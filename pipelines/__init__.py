"""Generated pipelines and the recipes of the shipped weights."""
