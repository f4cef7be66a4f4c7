"""The paper's table on open data: its tasks, its rows, its figures, and its own numbers beside ours."""
