# Connections as the rest of the package sees them: wires with deadlines, TLS, and time. wire.py has the theory.
