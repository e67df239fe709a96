"""Pictures that drawing begins from: received, checked, kept for whoever sent them while a job needs them."""
