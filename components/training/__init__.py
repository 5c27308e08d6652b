"""One training loop; a stage is a loss, a schedule, and what is frozen."""
