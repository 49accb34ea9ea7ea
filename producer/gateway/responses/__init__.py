"""``/v1/responses``: OpenAI's Responses API. A stored response is a job of the queue, and what a job does not keep."""
