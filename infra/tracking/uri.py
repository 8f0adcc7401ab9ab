"""What a tracking URI means: checked before MLflow gets it, and the sqlite file in the storage folder by default."""

from __future__ import annotations

import importlib.util
import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import requests
import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from infra.errors import UsageError, is_utf8, one_line, printable, user_part
from infra.store import IN_RAY_JOB

ARTIFACTS = "mlartifacts"  # beside the sqlite file: a folder an experiment
# Drivers by what their scheme names, in the order in which they are taken, and what pip calls them. SQLAlchemy 2.1
# alone takes the first one only.
DRIVERS = {
    "postgresql": {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"},
    "mysql": {"pymysql": "pymysql", "mysqldb": "mysqlclient"},
    "mssql": {"pyodbc": "pyodbc"},
}
MODULES = {"mysqldb": "MySQLdb"}  # a driver's module, where that is called otherwise
CONNECT_S = 10  # a database that does not answer is given up
PATH_CHARS = 200  # of a run's artifacts, in MLflow's schema
EXAMPLES = "give http://HOST:5000, sqlite:////FILE or postgresql://HOST/NAME, or leave it out"


def default_uri(storage: Path) -> str:
    """The sqlite store inside the storage folder. Raises UsageError for a folder that MLflow cannot name."""
    return sqlite_uri(storage / "mlflow.db")


def tracking_uri(given: str | None, storage: Path) -> str:
    """What --tracking-uri means: itself, else the environment's, else the default; as MLflow takes it.

    Raises UsageError for one that MLflow could not use, or that would be lost with this process.
    """
    uri = (given or os.environ.get("MLFLOW_TRACKING_URI") or "").strip()
    if not uri:
        return default_uri(storage)
    try:
        return _checked(uri, storage)
    except UsageError as error:
        raise UsageError(f"{'--tracking-uri' if given else 'MLFLOW_TRACKING_URI'} {error}") from error


def sqlite_uri(file: Path) -> str:
    """The URI of a sqlite file, whatever is in its name. Raises UsageError for a name that is not UTF-8."""
    _check_is_text(file, "rename it, or give another --storage, or the --tracking-uri of a server")
    uri = URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)
    # MLflow makes the folder that "sqlite:///" names, as it is written: it would make one with a % in its name.
    return uri.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in uri else uri


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite URI; None for every other URI."""
    if _kind(uri) != "sqlite":
        return None
    database = sqlalchemy.make_url(uri).database or ""
    return Path(unquote(urlsplit(database).path) if database.startswith("file:") else database)


def artifact_location(storage: Path, experiment: str) -> str:
    """Where a store that is no server keeps an experiment's files: in the storage folder, not in the cwd."""
    _check_is_text(storage, "rename it, or give the --tracking-uri of a server")
    return f"{storage.as_uri()}/{ARTIFACTS}/{quote(experiment)}"


def _check_is_text(path: Path, mend: str) -> None:
    if not is_utf8(path):
        raise UsageError(f"{printable(path)}: is not UTF-8, which MLflow cannot name; {mend}")


def check_length(uri: str, location: str) -> None:
    """Raises UsageError if a database could not hold the artifact paths below a location: sqlite holds all."""
    longest = len(f"{location}/{'0' * 32}/artifacts")
    if _kind(uri) in DRIVERS and longest > PATH_CHARS:
        cause = f"{location}: artifact paths of {longest} characters, the database of MLflow takes {PATH_CHARS}"
        raise UsageError(f"{cause}; give a shorter --storage or --experiment")


def is_database(uri: str) -> bool:
    """Whether MLflow opens it itself, and keeps no artifacts: those go to the storage folder."""
    return _kind(uri) in ("sqlite", *DRIVERS)


def _kind(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


def check_connection(uri: str) -> None:
    """Ask a database or a server once: MLflow itself tries for minutes.

    Raises SQLAlchemyError, and ConnectionError for a server that does not answer; nothing for other URIs.
    """
    kind = _kind(uri)
    if kind in ("http", "https"):
        try:
            requests.get(f"{uri.partition('?')[0].rstrip('/')}/health", timeout=CONNECT_S, allow_redirects=False)
        except requests.exceptions.SSLError:
            pass  # it is there; whom to trust, MLflow's own settings say
        except requests.Timeout as error:
            raise ConnectionError(f"no answer within {CONNECT_S} s") from error
        except (requests.RequestException, ValueError) as error:
            raise ConnectionError(_innermost(error)) from error
    if kind in DRIVERS:
        limit = {} if kind == "mssql" else {"connect_timeout": CONNECT_S}
        engine = sqlalchemy.create_engine(uri, poolclass=NullPool, connect_args=limit)
        with engine.connect():
            pass


def _innermost(error: BaseException) -> str:
    """What a failed request was about, such as "Connection refused": the text of an error is that of all its causes."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return str(found.strerror)
        found = found.__cause__ or found.__context__
    return one_line(error)


def _unusable(uri: str, cause: str, mend: str) -> UsageError:
    """Of one that is no file's all before the last @ is masked: who knows where the password of a wrong URI ends."""
    scheme, separator, _ = uri.partition("://")
    before, _, host = uri.rpartition("@")
    if before and not scheme.startswith(("sqlite", "file")):
        uri = f"{scheme}://***@{host}" if separator else f"***@{host}"
    return UsageError(f"{printable(uri.replace(' ', '%20'))}: {cause}; {mend}")


def _checked(uri: str, storage: Path) -> str:
    scheme, separator, rest = uri.partition("://")
    kind, _, driver = scheme.lower().partition("+")
    kind = {"postgres": "postgresql"}.get(kind, kind)
    uri = f"{scheme.lower()}{separator}{rest}" if separator else uri
    if not uri.isprintable():  # which bytes that are no UTF-8 are not either
        raise _unusable(uri, "holds characters that no URI has", EXAMPLES)
    user = user_part(uri)  # SQLAlchemy takes all but an @ in it, urllib none of these
    if not {"/", "?", "#"}.isdisjoint(user) and ("@" in user or kind in ("http", "https")):
        raise _unusable(uri, "holds a / ? or # in its password", "write them as %2F %3F %23, and @ as %40")
    if kind == "sqlite":
        return _checked_sqlite(uri, storage)
    if " " in uri and separator:
        raise _unusable(uri, "holds a space", "write it as %20")
    if kind in DRIVERS:
        return _with_driver(uri, kind, driver)
    if kind in ("http", "https"):
        if not _names_a_host(uri):
            raise _unusable(uri, "names no host", "give http://HOST:5000")
    elif kind.startswith("databricks"):
        raise _unusable(uri, "Databricks names experiments by paths in its workspace, which none here has", EXAMPLES)
    elif kind == "file" or not separator:
        raise _unusable(uri, "is a folder or a word, which MLflow takes no more", EXAMPLES)
    elif kind not in {plugin.name for plugin in entry_points(group="mlflow.tracking_store")}:
        raise _unusable(uri, f"MLflow has no store behind {kind}://", EXAMPLES)
    return uri


def _names_a_host(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).hostname) and urlsplit(uri).port != 0
    except ValueError:  # whose text may hold a part of a password
        return False


def _parsed(uri: str) -> URL:
    try:
        url = sqlalchemy.make_url(uri)
        url.get_dialect()
        return url
    except NoSuchModuleError as error:
        raise _unusable(uri, "names a driver that there is not", "leave out the + part") from error
    except (ArgumentError, ValueError) as error:
        raise _unusable(uri, "is no URI of a database", EXAMPLES) from error


def _checked_sqlite(uri: str, storage: Path) -> str:
    """Absolute, and of a file in a folder that is there, or in the storage folder, which the job makes."""
    url = _parsed(uri)
    if url.host:
        raise _unusable(uri, "has too few slashes", "write sqlite:////FILE with four for an absolute path")
    database = url.database or ""
    if not database or ":memory:" in database or url.query.get("mode") == "memory":
        raise _unusable(uri, "is in memory, and lost with this process", "write sqlite:////FILE, or leave it out")
    if url.get_dialect().is_async:
        raise _unusable(uri, "names an asynchronous driver, which MLflow cannot use", "leave out the + part")
    is_address = database.startswith("file:")  # of sqlite's own, with options of its own
    file = Path(unquote(urlsplit(database).path) if is_address else os.path.expanduser(database))
    if IN_RAY_JOB in os.environ and not file.is_absolute():
        raise _unusable(uri, "is in a Ray job's folder, which is thrown away", "give an absolute path")
    folder = file.absolute().parent
    if not folder.is_dir() and folder != storage:  # MLflow would make it, wherever a slash too many has it
        raise _unusable(uri, f"there is no folder {printable(folder)}", "make it first, or give another URI")
    if is_address:
        return uri.replace("sqlite:", "sqlite+pysqlite:", 1)
    options = uri.partition("?")[2]
    return sqlite_uri(file.absolute()) + (f"?{options}" if options else "")


def _with_driver(uri: str, kind: str, driver: str) -> str:
    """With a driver that is installed, where it names none, and with a password that may hold an @."""
    rest = uri.partition("://")[2]
    host = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index]
    user, at, _ = host.rpartition("@")
    rest = user.replace("@", "%40") + rest[len(user) :] if at else rest
    known = DRIVERS[kind]
    names = [driver] if driver else list(known)
    for name in names:
        if importlib.util.find_spec(MODULES.get(name, name)) is None:
            continue
        chosen = f"{kind}+{name}://{rest}"
        dialect = _parsed(chosen).get_dialect()
        try:
            dialect.import_dbapi()
        except ImportError as error:  # of its own parts, such as libpq
            mend = f"pip install '{known.get(name, name)}'"
            raise _unusable(uri, f"its driver cannot be loaded ({one_line(error)})", mend) from error
        if dialect.is_async:
            raise _unusable(uri, "names an asynchronous driver, which MLflow cannot use", "leave out the + part")
        return chosen
    package = known.get(names[0], names[0])
    _parsed(f"{kind}+{names[0]}://")  # a driver that SQLAlchemy does not know has another line
    raise _unusable(uri, f"needs the driver {names[0]}", f"pip install '{package}'")
