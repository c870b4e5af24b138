"""Events told to other people's servers: signed, tried again, kept in a log."""
