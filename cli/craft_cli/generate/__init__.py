"""From a prompt to pictures: what is asked for, drawn, named, written and made again."""
