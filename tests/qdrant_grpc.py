"""A small server that speaks Qdrant's gRPC, over an embedded Qdrant."""

# ruff: noqa: N802 - gRPC calls methods by the names of its services

from concurrent import futures

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_to_payload
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.grpc.qdrant_pb2_grpc import QdrantServicer, add_QdrantServicer_to_server


class GrpcServer(CollectionsServicer, PointsServicer, QdrantServicer):
    """A Qdrant on a port of this machine; the first upserts fail with the codes in `faults`."""

    def __init__(self, version="1.20.0"):
        self.qdrant, self.version, self.faults = QdrantClient(":memory:"), version, []
        self.grpc = grpc.server(futures.ThreadPoolExecutor(2))
        for add in (add_CollectionsServicer_to_server, add_PointsServicer_to_server, add_QdrantServicer_to_server):
            add(self, self.grpc)
        self.port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()

    def client(self):
        return QdrantClient("127.0.0.1", grpc_port=self.port, prefer_grpc=True, check_compatibility=False, timeout=5)

    def close(self):
        self.grpc.stop(None).wait()
        self.qdrant.close()

    def HealthCheck(self, asked, context):
        return messages.HealthCheckReply(title="qdrant - vector search engine", version=self.version)

    def Create(self, asked, context):
        vectors = GrpcToRest.convert_vectors_config(asked.vectors_config)
        self.qdrant.create_collection(asked.collection_name, vectors, metadata=grpc_to_payload(asked.metadata))
        return messages.CollectionOperationResponse(result=True)

    def CollectionExists(self, asked, context):
        there = self.qdrant.collection_exists(asked.collection_name)
        return messages.CollectionExistsResponse(result=messages.CollectionExists(exists=there))

    def Upsert(self, asked, context):
        if self.faults:
            context.abort(self.faults.pop(0), "as told")
        self.qdrant.upsert(asked.collection_name, [GrpcToRest.convert_point_struct(point) for point in asked.points])
        return messages.PointsOperationResponse(result=messages.UpdateResult(status=messages.UpdateStatus.Completed))

    def Delete(self, asked, context):
        self.qdrant.delete(asked.collection_name, [GrpcToRest.convert_point_id(id) for id in asked.points.points.ids])
        return messages.PointsOperationResponse(result=messages.UpdateResult(status=messages.UpdateStatus.Completed))

    def Count(self, asked, context):
        count = self.qdrant.count(asked.collection_name, condition(asked), exact=asked.exact).count
        return messages.CountResponse(result=messages.CountResult(count=count))

    def Get(self, asked, context):
        """A collection or points: both services have a method of this name."""
        if not hasattr(asked, "ids"):
            if not self.qdrant.collection_exists(asked.collection_name):
                context.abort(grpc.StatusCode.NOT_FOUND, "Not found: Collection doesn't exist!")
            info = self.qdrant.get_collection(asked.collection_name)
            return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))
        ids = [GrpcToRest.convert_point_id(point) for point in asked.ids]
        found = self.qdrant.retrieve(asked.collection_name, ids, with_vectors=asked.with_vectors.enable)
        return messages.GetResponse(result=[RestToGrpc.convert_record(record) for record in found])

    def QueryBatch(self, asked, context):
        queries = [
            models.QueryRequest(
                query=list(one.query.nearest.dense.data),
                filter=condition(one),
                limit=one.limit,
                with_payload=list(one.with_payload.include.fields),
            )
            for one in asked.query_points
        ]
        answers = self.qdrant.query_batch_points(asked.collection_name, queries)
        found = [[RestToGrpc.convert_scored_point(point) for point in answer.points] for answer in answers]
        return messages.QueryBatchResponse(result=[messages.BatchResult(result=points) for points in found])


def condition(asked):
    """The filter of a request; lists that are not there arrive empty, which an embedded Qdrant may take literally."""
    return models.Filter(must=GrpcToRest.convert_filter(asked.filter).must) if asked.HasField("filter") else None
