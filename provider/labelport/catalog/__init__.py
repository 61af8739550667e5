"""The catalog: projects, storages, tasks, links and runs in one database. Nothing else speaks SQL.

`Catalog` opens it; every function of the modules beside it takes a connection and does one thing.
"""

from labelport.catalog.database import Catalog, catalog_url

__all__ = ["Catalog", "catalog_url"]
