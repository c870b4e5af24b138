"""What is read from: servers, their dumps, and their files."""
