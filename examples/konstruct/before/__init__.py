"""The same service as many are written: the tenant is an argument, a header, a global. It leaks."""
