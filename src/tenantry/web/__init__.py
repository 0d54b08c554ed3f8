"""What the web edges share: the request view, the decision, the problem document. No framework here.

An edge builds a :class:`~tenantry.web.gate.Gate` from its options, shows it each request through a
:class:`~tenantry.web.request.Request` view, and does what the decision says.
"""
