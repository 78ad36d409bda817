"""How fast callflow is beside bare COPY and beside dlt: `make bench`, `python -m benchmarks.speed`.

Pages are static and come from a process of negligible cost; every run is a whole process.
"""
