"""What several test files use: fakes, strategies, the worker as a process, rows and queues to look at."""
