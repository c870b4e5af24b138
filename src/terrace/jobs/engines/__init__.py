"""What finds and runs jobs. The rows are the truth for all of them."""
