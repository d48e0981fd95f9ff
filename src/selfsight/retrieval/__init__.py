"""Nearest images by their features: an index that can be kept, and pairs that are too alike."""

from selfsight.retrieval.duplicates import MAX_PAIRS, Pairs, check_level, groups, pairs
from selfsight.retrieval.found import results_sheet, results_table, rows_of
from selfsight.retrieval.gallery import Gallery, Reading, open_gallery
from selfsight.retrieval.index import EXACT_BELOW, Contents, Index, Neighbours
from selfsight.retrieval.queries import Query, answers, queries
from selfsight.retrieval.store import Origin, kept_index
from selfsight.retrieval.tables import check_format, write_table
from selfsight.retrieval.twins import Twins

__all__ = [
    "EXACT_BELOW",
    "MAX_PAIRS",
    "Contents",
    "Gallery",
    "Index",
    "Neighbours",
    "Origin",
    "Pairs",
    "Query",
    "Reading",
    "answers",
    "Twins",
    "check_format",
    "check_level",
    "groups",
    "kept_index",
    "open_gallery",
    "pairs",
    "queries",
    "results_sheet",
    "results_table",
    "rows_of",
    "write_table",
]
