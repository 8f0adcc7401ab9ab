"""A storage folder that was moved: MLflow's store keeps absolute paths of its files, which go with the folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy
from sqlalchemy import Connection, text
from sqlalchemy.pool import NullPool

from infra.tracking.uri import ARTIFACTS, artifact_location, is_database, sqlite_file

# MLflow's own schema, of which no client's call changes these columns.
EXPERIMENTS = text("SELECT experiment_id, name, artifact_location FROM experiments")
RUNS = text("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = :id")
MOVE_EXPERIMENT = text("UPDATE experiments SET artifact_location = :now WHERE experiment_id = :id")
# Of logged models too.
MODELS = text("SELECT model_id, artifact_location FROM logged_models WHERE experiment_id = :id")
MOVE_MODEL = text("UPDATE logged_models SET artifact_location = :now WHERE model_id = :one")
MOVE_RUN = text("UPDATE runs SET artifact_uri = :now WHERE run_uuid = :one")


def follow_storage(uri: str, storage: Path, experiment: str = "") -> None:
    """Let a store that is no server find its files below `storage`, where they were once elsewhere.

    Files of the sqlite store in the storage folder are beside it, whatever it says: of every experiment in it. Those of
    a database elsewhere are looked for only if they are not where it says, and only the experiment's.

    Raises SQLAlchemyError.
    """
    if not is_database(uri):
        return
    inside = sqlite_file(uri) == storage / "mlflow.db"
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
    with engine.begin() as connection:
        if not sqlalchemy.inspect(connection).has_table("experiments"):
            return
        for number, name, before in connection.execute(EXPERIMENTS).all():
            now = artifact_location(storage, name)
            ours = str(before).endswith(f"/{ARTIFACTS}/{quote(name)}")  # of another program's it is not
            if before != now and ours and (inside or (name == experiment and not _folder(before).exists())):
                _move(connection, number, before, now)


def _move(connection: Connection, experiment_id: int, before: str, now: str) -> None:
    connection.execute(MOVE_EXPERIMENT, {"id": experiment_id, "now": now})
    for there, move in ((RUNS, MOVE_RUN), (MODELS, MOVE_MODEL)):
        moved = [
            {"one": one, "now": now + uri[len(before) :]}
            for one, uri in connection.execute(there, {"id": experiment_id}).all()
            if uri.startswith(f"{before}/")
        ]
        if moved:
            connection.execute(move, moved)


def _folder(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))
