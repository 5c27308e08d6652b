"""What a run found, for people: one page (`step_report`), one table (`table`), and the figures in them."""
