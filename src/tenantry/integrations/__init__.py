"""The edges: one public module per host. Each is imported by the application, never by tenantry."""
