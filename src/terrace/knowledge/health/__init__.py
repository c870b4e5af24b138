"""How a tenant's corpus is: what is broken, what is double, what nobody reads; and what mends it."""
