"""What runs after a call: a durable queue in the database, and its worker."""
