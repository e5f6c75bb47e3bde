"""The labour market: frozen tables of applicants and jobs, and the sources that they come from."""

from jobrec_gym.market.context import ContextField, ContextTable, ContextValue
from jobrec_gym.market.folder import market_folder, read_header, write_vectors
from jobrec_gym.market.labour_market import LabourMarket, load_market
from jobrec_gym.market.sources import MarketSpec, register_market_source
from jobrec_gym.market.tables import (
    BLOCKS,
    SENIORITY_LEVELS,
    MarketError,
    Population,
    Profile,
    SkillLists,
    Split,
    Texts,
    Vocabulary,
)
from jobrec_gym.market.vectors import compose_block, compose_vectors, gathered, row_products

__all__ = [
    "BLOCKS",
    "SENIORITY_LEVELS",
    "ContextField",
    "ContextTable",
    "ContextValue",
    "LabourMarket",
    "MarketError",
    "MarketSpec",
    "Population",
    "Profile",
    "SkillLists",
    "Split",
    "Texts",
    "Vocabulary",
    "compose_block",
    "compose_vectors",
    "gathered",
    "load_market",
    "market_folder",
    "read_header",
    "register_market_source",
    "row_products",
    "write_vectors",
]
