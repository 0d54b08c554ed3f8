"""konstruct: agents that talk in the channels of many tenants; no signature here names one."""
