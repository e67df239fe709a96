"""What keeps a daemon's folders bounded: what is done with is forgotten, and how much there is can be asked."""
