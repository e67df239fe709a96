"""The gRPC face: the only place, besides the worker's frames, that knows protobuf."""
