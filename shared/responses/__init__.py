"""Responses: what OpenAI's Responses API keeps of a request beside its job."""
