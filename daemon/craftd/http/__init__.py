"""The HTTP shim: one router per contract, over the services that gRPC calls."""
