"""What jobs have made: a file each, and a row that says so."""
