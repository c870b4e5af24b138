"""Moving in, out and between: from one database to another, from other systems, into a backup and back."""
