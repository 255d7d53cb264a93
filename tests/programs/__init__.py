"""What the tests run in other processes: importable there by name, under every start method."""
