"""What comes in and goes out, contract by contract."""
