"""Pictures that drawing begins from: a file of the store becomes what a model draws over, and how that is put back."""
