"""What happens, told: structured logs, Prometheus metrics, and the books of every model call and its cost."""
