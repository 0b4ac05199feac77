# Connections as the rest of the package sees them: streams with deadlines, TLS, and time.
