"""Policy server and client, chunk executor, trial runner, trial log, statistics, report."""
