"""The stack without containers: what `make setup` and `make run` do.

Stage 1 (`python3 -m portico.local`) is standard library only, because nothing is installed yet; it looks at the machine
and makes the environments. Stage 2 (`portico local`) runs in the gateway's environment and starts the processes.
"""
