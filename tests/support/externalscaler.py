"""KEDA's gRPC contract of an external scaler, its messages built from the field numbers of KEDA's documentation: a client, and a scaler to be asked."""

from __future__ import annotations

from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "externalscaler.ExternalScaler"
FIELD = descriptor_pb2.FieldDescriptorProto
TEXT, FLAG, WHOLE, DOUBLE = FIELD.TYPE_STRING, FIELD.TYPE_BOOL, FIELD.TYPE_INT64, FIELD.TYPE_DOUBLE
MESSAGES = {
    "ScaledObjectRef": [("name", TEXT), ("namespace", TEXT), ("scalerMetadata", "map")],
    "IsActiveResponse": [("result", FLAG)],
    "MetricSpec": [("metricName", TEXT), ("targetSize", WHOLE), ("targetSizeFloat", DOUBLE)],
    "GetMetricSpecResponse": [("metricSpecs", "*MetricSpec")],
    "GetMetricsRequest": [("scaledObjectRef", "MetricRef"), ("metricName", TEXT)],
    "MetricValue": [("metricName", TEXT), ("metricValue", WHOLE), ("metricValueFloat", DOUBLE)],
    "GetMetricsResponse": [("metricValues", "*MetricValue")],
}


def messages() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="externalscaler.proto", package="externalscaler", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, 1):
            added = message.field.add(name=field, number=number, label=FIELD.LABEL_OPTIONAL)
            if kind == "map":
                entry = message.nested_type.add(name="ScalerMetadataEntry")
                entry.options.map_entry = True
                for index, part in enumerate(("key", "value"), 1):
                    entry.field.add(name=part, number=index, type=TEXT, label=FIELD.LABEL_OPTIONAL)
                added.type, added.label = FIELD.TYPE_MESSAGE, FIELD.LABEL_REPEATED
                added.type_name = ".externalscaler.ScaledObjectRef.ScalerMetadataEntry"
            elif isinstance(kind, str):
                added.type = FIELD.TYPE_MESSAGE
                added.label = FIELD.LABEL_REPEATED if kind.startswith("*") else FIELD.LABEL_OPTIONAL
                added.type_name = ".externalscaler." + ("ScaledObjectRef" if kind == "MetricRef" else kind[1:])
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"externalscaler.{name}")) for name in MESSAGES}


TYPES = messages()
METHODS = {
    "IsActive": ("ScaledObjectRef", "IsActiveResponse", False),
    "StreamIsActive": ("ScaledObjectRef", "IsActiveResponse", True),
    "GetMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", False),
    "GetMetrics": ("GetMetricsRequest", "GetMetricsResponse", False),
    "StreamMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", True),
}


class Keda:
    """Asks as KEDA asks."""

    def __init__(self, address: str, **metadata: str):
        self.channel = grpc.insecure_channel(address)
        self.reference = TYPES["ScaledObjectRef"](name="web", namespace="default", scalerMetadata=metadata)

    def call(self, method: str, metric: str = ""):
        asks, answers, is_stream = METHODS[method]
        kind = self.channel.unary_stream if is_stream else self.channel.unary_unary
        stub = kind(f"/{SERVICE}/{method}", request_serializer=TYPES[asks].SerializeToString, response_deserializer=TYPES[answers].FromString)
        request = self.reference if asks == "ScaledObjectRef" else TYPES[asks](scaledObjectRef=self.reference, metricName=metric)
        return stub(request, timeout=20)


class Scaler:
    """A scaler that says what it is told to say, and remembers who asked."""

    def __init__(self) -> None:
        self.value, self.target, self.active, self.asked = 0.0, 1.0, True, []
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        answers = {
            "IsActive": lambda _: TYPES["IsActiveResponse"](result=self.active),
            "GetMetricSpec": self.specs,
            "GetMetrics": lambda _: TYPES["GetMetricsResponse"](metricValues=[{"metricName": "depth", "metricValueFloat": self.value}]),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                lambda request, _, answer=answer: answer(request),
                request_deserializer=TYPES[METHODS[name][0]].FromString,
                response_serializer=TYPES[METHODS[name][1]].SerializeToString,
            )
            for name, answer in answers.items()
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def specs(self, reference):
        self.asked.append((reference.name, reference.namespace, dict(reference.scalerMetadata)))
        return TYPES["GetMetricSpecResponse"](metricSpecs=[{"metricName": "depth", "targetSizeFloat": self.target}])
