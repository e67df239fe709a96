"""The command `craft`: what a user types, without torch and gone in a blink."""
