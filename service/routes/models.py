"""GET /v2/models: which products there are, and their metadata (Open Inference Protocol)."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from models.bundle import Bundle
from models.manifest import DataSource
from service.bundles.library import provider_of
from service.deps import Services, ServicesDep
from service.schemas import scale_of

router = APIRouter(prefix="/v2/models", tags=["models"])


class TensorOut(BaseModel):
    """One input or output, as the Open Inference Protocol describes it."""

    name: str
    datatype: str
    shape: list[int]


class ModelOut(BaseModel):
    """Metadata of a product's bundle: the protocol's fields, then what its manifest tells."""

    name: str
    versions: list[str]
    platform: str = "onnxruntime_onnx"
    inputs: list[TensorOut] = [TensorOut(name="image", datatype="UINT8", shape=[-1, -1, 3])]
    outputs: list[TensorOut] = [
        TensorOut(name="confidence_matrix", datatype="FP32", shape=[-1, -1]),
        TensorOut(name="defects", datatype="BYTES", shape=[-1]),
    ]
    version: str
    labels: list[str]
    data: list[DataSource] = Field(description="what it was trained on, with the licences")
    figures: dict[str, float] = Field(description="measured on validation pictures")
    mm_per_px: float | None
    provider: str = Field(description="the execution provider that really runs it")

    @classmethod
    def of(cls, bundle: Bundle, versions: list[str]) -> ModelOut:
        """From a loaded bundle."""
        manifest = bundle.manifest
        return cls(
            name=manifest.product,
            versions=versions,
            version=manifest.version,
            labels=list(manifest.labels),
            data=list(manifest.training.data),
            figures=manifest.figures,
            mm_per_px=scale_of(manifest),
            provider=provider_of(bundle),
        )


class CatalogueOut(BaseModel):
    """Every product with its versions, oldest first."""

    default: str
    models: dict[str, list[str]]


class ModelReadyOut(BaseModel):
    """A product's bundle is loaded and warm."""

    name: str
    ready: bool


@router.get("")
async def list_products(services: ServicesDep) -> CatalogueOut:
    """Every product with its versions, oldest first."""
    library = services.library
    return CatalogueOut(default=library.default_product, models=library.versions())


@router.get("/{product}")
async def describe_product(product: str, services: ServicesDep) -> ModelOut:
    """The newest version's metadata."""
    return describe(product, None, services)


@router.get("/{product}/ready")
async def product_ready(product: str, services: ServicesDep) -> ModelReadyOut:
    """Whether the product can be asked for."""
    return ready(product, None, services)


@router.get("/{product}/versions/{version}")
async def describe_version(product: str, version: str, services: ServicesDep) -> ModelOut:
    """One version's metadata."""
    return describe(product, version, services)


@router.get("/{product}/versions/{version}/ready")
async def version_ready(product: str, version: str, services: ServicesDep) -> ModelReadyOut:
    """Whether this version can be asked for."""
    return ready(product, version, services)


def describe(product: str, version: str | None, services: Services) -> ModelOut:
    """Metadata of a loaded bundle. Errors: BundleMissing."""
    bundle = services.library.pick(product, version)
    return ModelOut.of(bundle, services.library.versions().get(product, []))


def ready(product: str, version: str | None, services: Services) -> ModelReadyOut:
    """A loaded bundle is warm; it is ready while the service is. Errors: BundleMissing."""
    services.engine.require_ready()
    return ModelReadyOut(name=services.library.pick(product, version).manifest.product, ready=True)
