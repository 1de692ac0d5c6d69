"""The formats that `launch.prepare` reads, by name. A new one is one file here and one row."""
