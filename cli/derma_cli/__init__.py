"""The `derma` command and the supervisor of its services."""
