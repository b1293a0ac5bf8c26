"""The I/O edge to Asterisk: ARI, AMI, configuration."""
