"""What an agent imports: ``from lorapool.producer import Client``. No torch anywhere below.

Blocking code imports the same names from ``lorapool.producer.sync``. Errors are those of ``lorapool.shared.errors``.
"""

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.request import Request
from lorapool.producer.client.stream import TextDelta
from lorapool.producer.operator.cost import Bill
from lorapool.producer.operator.tariff import Tariff
from lorapool.shared import __version__
from lorapool.shared.catalog.aliases import alias_of
from lorapool.shared.errors import (
    AdapterClosed,
    AdapterConflict,
    AdapterInUse,
    AdapterNotReady,
    AdapterRefused,
    AdapterUnavailable,
    CheckpointError,
    ClientClosed,
    Fate,
    ForeignClient,
    InvalidRequest,
    JobCancelled,
    JobConflict,
    JobExpired,
    JobFailed,
    JobLost,
    LorapoolError,
    NoWorker,
    PayloadTooLarge,
    PoolMismatch,
    QueueFull,
    RedisAuthFailed,
    RedisFull,
    RedisUnreachable,
    ResultExpired,
    ResultTimeout,
    ScheduleConflict,
    UnknownAdapter,
    UnknownJob,
    UnknownSchedule,
    UnsupportedVersion,
)
from lorapool.shared.job import FinishReason, JobState, Message, Priority, Result, SamplingParams, Timings, Usage
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.queue.protocol import Explanation
from lorapool.shared.timetable.schedule import Schedule

__all__ = [
    "AdapterClosed",
    "AdapterConflict",
    "AdapterInUse",
    "AdapterNotReady",
    "AdapterRefused",
    "AdapterUnavailable",
    "Bill",
    "CheckpointError",
    "Client",
    "ClientClosed",
    "Explanation",
    "Fate",
    "FinishReason",
    "ForeignClient",
    "InvalidRequest",
    "JobCancelled",
    "JobConflict",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobLost",
    "JobState",
    "LorapoolError",
    "Message",
    "NoWorker",
    "PayloadTooLarge",
    "PoolMismatch",
    "Priority",
    "PromptFormat",
    "QueueFull",
    "RedisAuthFailed",
    "RedisFull",
    "RedisUnreachable",
    "Request",
    "Result",
    "ResultExpired",
    "ResultTimeout",
    "SamplingParams",
    "Schedule",
    "ScheduleConflict",
    "Tariff",
    "TextDelta",
    "Timings",
    "UnknownAdapter",
    "UnknownJob",
    "UnknownSchedule",
    "UnsupportedVersion",
    "Usage",
    "__version__",
    "alias_of",
]
