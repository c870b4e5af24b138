"""Tables people have, read row by row in a subprocess: what is in them, what is wrong with them, whom they name."""
