"""
/metrics, /livez and /readyz, as every worker has them (`tillstream/http.py`); and /asyncapi.json, which tells what
flows through Kafka as /openapi.json tells what is answered here.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from tillstream.api.world import WorldDep
from tillstream.asyncapi import document
from tillstream.metrics import CONTENT_TYPE

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(world: WorldDep) -> Response:
    """All metrics in Prometheus' text format."""
    text = world.redact(world.meter.exposition().decode())
    return Response(text.encode(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/asyncapi.json")
async def asyncapi(world: WorldDep) -> JSONResponse:
    """The AsyncAPI 3 document of this installation's topics, as `till topic asyncapi` prints it."""
    return JSONResponse(document(world.topics, prefix=world.settings.topic.prefix))


@router.get("/livez")
async def livez() -> JSONResponse:
    """It lives."""
    return JSONResponse({"live": True})


@router.get("/readyz")
async def readyz(world: WorldDep) -> JSONResponse:
    """Whether it does its work now, and if not why."""
    reasons = {subject: world.redact(reason) for subject, reason in world.health.reasons().items()}
    return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)
