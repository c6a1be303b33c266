"""A supervised actor runtime in front of LLM providers."""
