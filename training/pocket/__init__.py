from craftd import worker as worker  # hides a torchvision that does not fit torch
