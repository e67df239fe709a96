from craftd import worker as worker  # hides a torchvision that is not for this torch
