from __future__ import annotations

from sqlalchemy import create_engine, inspect

from service.records.tables import INSPECTIONS, METADATA, MIGRATIONS, migrate


def test_a_new_database_gets_every_table_and_column(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")

    with engine.begin() as db:
        migrate(db)

    made = inspect(engine)
    assert set(made.get_table_names()) == set(METADATA.tables)
    columns = {column["name"] for column in made.get_columns("inspections")}
    assert columns == set(INSPECTIONS.c.keys())
    engine.dispose()


def test_a_migration_is_done_once(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")

    for _ in range(2):
        with engine.begin() as db:
            migrate(db)

    with engine.connect() as db:
        numbers = db.exec_driver_sql("SELECT number FROM migrations").scalars().all()
    assert numbers == list(range(1, len(MIGRATIONS) + 1))
    engine.dispose()
