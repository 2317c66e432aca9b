"""What the end-to-end tests stand on: real servers, the real binary, real telemetry."""
