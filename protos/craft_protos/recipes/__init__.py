"""What pictures of any program say of how they were made: `reading.read` is the way in, a `Recipe` what comes out."""
