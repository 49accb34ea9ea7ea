"""The gateway: OpenAI's API, and LoRAX's, over HTTP. A request is a job of the queue; nothing is kept here.

Needs the extra ``[gateway]``. Any number of replicas serve one pool.
"""
