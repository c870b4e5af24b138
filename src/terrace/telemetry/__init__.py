"""What happens, told: structured logs and Prometheus metrics."""
