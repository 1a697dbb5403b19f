"""Configuration of an index of vectors: how it is searched, and how many bytes each vector takes in memory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config import Config

CENTROIDS = 256  # of each part of a product-quantised code: one byte


class IndexConfig(Config):
    """How an index is searched; vectors themselves are always stored, for exact answers and for reranking."""

    kind: Literal["exact", "ivf_pq", "hnsw"] = Field(
        "ivf_pq",
        description="exact: compare with every vector; ivf_pq: product-quantised codes in cells; hnsw: a graph over "
        "vectors of a byte per number, built again after a deletion",
    )
    code_bytes: int = Field(16, ge=1, le=256, description="ivf_pq: bytes of a code")
    cells: int | None = Field(None, ge=1, description="ivf_pq: cells; null: the power of two below 2 sqrt(vectors)")
    probes: int = Field(32, ge=1, description="ivf_pq: cells that a query visits")
    links: int = Field(16, ge=2, le=128, description="hnsw: links of a vector to others (M)")
    build_effort: int = Field(64, ge=2, description="hnsw: candidates considered when a vector is linked")
    search_effort: int = Field(96, ge=2, description="hnsw: candidates considered by a query")
    rerank: int = Field(
        128, ge=0, description="nearest codes that are compared again by their stored vectors; 0: none, codes decide"
    )
    train_on: int = Field(100_000, ge=CENTROIDS, description="most vectors that cells and codes are learned from")
    exact_below: int = Field(
        5_000, ge=CENTROIDS, description="an index of fewer vectors is searched exactly, whatever its kind"
    )
