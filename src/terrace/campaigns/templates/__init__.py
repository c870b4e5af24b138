"""Templates: texts with places for what is known of a contact. They hold no code."""
