"""How fast es2's paths are against what a user would otherwise do; `make bench` (docs/performance.md)."""
