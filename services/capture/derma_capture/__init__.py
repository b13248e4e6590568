"""The capture service: pictures of one camera into its ring, within the credit window."""
