"""What goes on by itself: an action at a time, each due time once however many processes look at the clock."""
