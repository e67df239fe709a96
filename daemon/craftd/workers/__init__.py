"""Workers: started, watched, replaced, ended."""
