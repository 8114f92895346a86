"""What several gateways have in common, kept in Redis or Valkey: the limits of tenants."""
