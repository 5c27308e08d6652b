"""What a run leaves behind: live metrics of stages, MLflow's REST calls, registered models."""
