"""QMP over a socket: connections, events, monitors, jobs."""
