"""The names of the Agent Operating System's LoRAx, with real inference behind them.

    from lorapool.producer.aos import MLConfig, MLPipelineManager

The same classes, argument defaults and dictionary keys; what they mean is true here: starting attaches to a pool of
workers, counts are the workers', a failure is an error. Knows nothing of torch: workers are other processes. New code
is better off with ``lorapool.producer.Client``.
"""

from lorapool.producer.aos.adapter_info import AdapterInfo
from lorapool.producer.aos.agents import HttpChatClient, IMLService, PoolChatClient, PoolMLService
from lorapool.producer.aos.config import LoRAxConfig, MLConfig
from lorapool.producer.aos.errors import IgnoredSetting, NotRunning, RequestRefused, UnknownAdapterId
from lorapool.producer.aos.pipeline import MLPipelineManager
from lorapool.producer.aos.registry import LoRAxAdapterRegistry
from lorapool.producer.aos.server import LoRAxServer

__all__ = [
    "AdapterInfo",
    "HttpChatClient",
    "IMLService",
    "IgnoredSetting",
    "LoRAxAdapterRegistry",
    "LoRAxConfig",
    "LoRAxServer",
    "MLConfig",
    "MLPipelineManager",
    "NotRunning",
    "PoolChatClient",
    "PoolMLService",
    "RequestRefused",
    "UnknownAdapterId",
]
