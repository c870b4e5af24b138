"""How much a key, a user and a tenant may use."""
