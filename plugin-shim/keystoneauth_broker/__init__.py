"""The keystoneauth plugin `v3broker`: asks keystone-broker's agent for tokens instead of signing in itself.

Kept small on purpose: `openstack` loads every plugin's loader at each command.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
