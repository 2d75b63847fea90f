//! The tables, and how a file comes to have exactly them.
//!
//! A schema is never edited once released: a change is one more entry in [`MIGRATIONS`], and
//! `user_version` counts those a file went through.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{Kind, OpenError, kind};

/// Times are RFC 3339 text with nanoseconds. Invariants that SQLite cannot hold:
/// - `meta` has one row from the first start decision on. `position` only grows between two requests;
///   `published` is NULL until the first commit under the epoch that began or moved the file, and then
///   the time of the message at `position`; `published_through` only grows as long as the stream is the
///   same. Position, windows, counters and PubAcks move in one transaction.
/// - `gaps` do not touch each other, and there are at most a hundred.
/// - `groups` is what the engine holds after applying every event up to `position`, under the rules
///   of the last segment of `lineage`. A correlation is known by its fingerprint, stored once.
/// - `lineage`: the segment with the highest `id` is current; each but the last had an event applied
///   under it. `start` is the first sequence it covers; `filter` is a sorted JSON array of subjects.
/// - `attempts` has one row from the first start on: `tries` starts in a row found `position`;
///   `in_flight` is the event being applied, written before that. `deaths` counts processes that
///   died with that event in flight, for events beyond `position` only; a move forgets them.
pub(super) const V1: &str = "
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  cluster TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  partition INTEGER NOT NULL,
  stream TEXT NOT NULL,
  stream_created TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  position INTEGER NOT NULL,
  published TEXT,
  published_through INTEGER NOT NULL,
  events INTEGER NOT NULL DEFAULT 0,
  alerts_new INTEGER NOT NULL DEFAULT 0,
  alerts_known INTEGER NOT NULL DEFAULT 0,
  dead_letters INTEGER NOT NULL DEFAULT 0,
  late INTEGER NOT NULL DEFAULT 0,
  skewed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE gaps (
  first INTEGER PRIMARY KEY,
  last INTEGER NOT NULL CHECK (last >= first),
  possible INTEGER NOT NULL
) STRICT;
CREATE TABLE stores (
  stream TEXT PRIMARY KEY,
  acknowledged INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE correlations (
  id INTEGER PRIMARY KEY,
  fingerprint TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE groups (
  id INTEGER PRIMARY KEY,
  correlation INTEGER NOT NULL REFERENCES correlations (id),
  key BLOB NOT NULL,
  state BLOB NOT NULL,
  UNIQUE (correlation, key)
) STRICT;
CREATE TABLE lineage (
  id INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  start INTEGER NOT NULL,
  filter TEXT NOT NULL,
  engine_digest TEXT NOT NULL
) STRICT;
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  position INTEGER,
  tries INTEGER NOT NULL,
  in_flight INTEGER
) STRICT;
CREATE TABLE deaths (
  sequence INTEGER PRIMARY KEY,
  deaths INTEGER NOT NULL
) STRICT;
";
/// Requests that moved the file:
/// - `ledger` has a row for each request that was ever applied, in the order of their epochs; it is
///   written in the transaction that moves the file, and never changed. `start` is the first sequence
///   with alerts, `read_from` the first one read when that is an earlier one.
/// - `lineage.last` is the last sequence applied under a segment, NULL for the current one; `rewind` is
///   the request in force under it, NULL before the first; `dropped` says that the windows were empty
///   when it began although there were segments before it.
const V2: &str = "
CREATE TABLE ledger (
  id INTEGER PRIMARY KEY,
  request TEXT NOT NULL UNIQUE,
  fingerprint TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  state_policy TEXT NOT NULL,
  start INTEGER NOT NULL,
  read_from INTEGER,
  windows TEXT NOT NULL,
  reason TEXT NOT NULL,
  outputs TEXT NOT NULL,
  target INTEGER NOT NULL,
  plan_hash TEXT NOT NULL
) STRICT;
ALTER TABLE lineage ADD COLUMN last INTEGER;
ALTER TABLE lineage ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lineage ADD COLUMN rewind INTEGER REFERENCES ledger (id);
UPDATE lineage SET last =
  (SELECT next.start - 1 FROM lineage AS next WHERE next.id > lineage.id ORDER BY next.id LIMIT 1);
";
/// Every table of the newest schema.
const TABLES: [&str; 9] = [
    "attempts",
    "correlations",
    "deaths",
    "gaps",
    "groups",
    "ledger",
    "lineage",
    "meta",
    "stores",
];
/// What brings a file from each schema to the next.
const MIGRATIONS: [&str; 2] = [V1, V2];
/// The newest schema this build knows.
pub(super) const SUPPORTED: u32 = MIGRATIONS.len() as u32;
/// "LkBk": tells a state file from any other SQLite database.
pub(super) const APPLICATION_ID: u32 = 0x4c6b_426b;
/// Pages of WAL, 16 MiB, after which a commit also copies them into the main file. A group that
/// changes in every batch is then copied once for many commits; opening after a crash reads at most
/// about this much. A second connection could copy off the commit path, but the exclusive lock
/// forbids one.
const WAL_PAGES: u32 = 4096;
/// Bytes the WAL is cut to after one large batch.
const WAL_BYTES: u32 = 64 << 20;
const CACHE_KIB: i32 = 16 << 10;

enum Content {
    Nothing,
    Schema(u32),
}

/// Opens, checks and, when it is new or of an older schema, migrates the file at `path`.
pub(super) fn open_or_create(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    let found = match inspect(&connection, path)? {
        Content::Nothing => 0,
        Content::Schema(version) => version,
    };
    prepare_for_writing(&connection).map_err(at(path, "configure"))?;
    migrate(&mut connection, found).map_err(at(path, "migrate"))?;
    Ok(connection)
}

/// Opens and checks a file with a current schema for reading, under the same exclusive lock, and
/// leaves the main file and its WAL as they are.
pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>, OpenError> {
    let connection = connect(path, OpenFlags::empty())?;
    match inspect(&connection, path)? {
        Content::Schema(SUPPORTED) => Ok(Some(connection)),
        Content::Nothing | Content::Schema(_) => Ok(None),
    }
}

fn connect(path: &Path, create: OpenFlags) -> Result<Connection, OpenError> {
    // SQLite would delete such a WAL together with the commits in it, and takes a file of one byte
    // for an empty one.
    let length = size_of(path)?;
    if length == 1 || (length == 0 && size_of(&wal_of(path))? > 0) {
        return Err(OpenError::Corrupt(format!(
            "{} has {length} bytes, but it or its WAL was written to",
            path.display()
        )));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags).map_err(at(path, "open"))?;
    configure(&connection).map_err(at(path, "configure"))?;
    Ok(connection)
}

/// Settings that write nothing. `temp_store` because the root file system is read-only; without a
/// checkpoint on close a file that is refused later stays as it is.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// Takes the lock, which SQLite does with the first read, and looks for damage.
fn inspect(connection: &Connection, path: &Path) -> Result<Content, OpenError> {
    let found = look(connection).map_err(at(path, "read"))?;
    if (found.application, found.version) == (0, 0) && found.tables.is_empty() {
        return Ok(Content::Nothing);
    }
    if found.application != APPLICATION_ID {
        return Err(OpenError::Corrupt(
            "it is a SQLite database, but no state file".to_owned(),
        ));
    }
    if found.version > SUPPORTED {
        return Err(OpenError::NewerSchema {
            found: found.version,
            supported: SUPPORTED,
        });
    }
    let missing = TABLES.iter().find(|&&table| !found.has(table));
    if let (SUPPORTED, Some(missing)) = (found.version, missing) {
        return Err(OpenError::Corrupt(format!("table {missing} is missing")));
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(at(path, "check"))?;
    if verdict != "ok" {
        return Err(OpenError::Corrupt(verdict));
    }
    // SQLite reads bytes that are missing at the end as zeros. A crash while pages are copied from
    // the WAL leaves such an end too, but then the WAL still holds them.
    let expected = found.pages * found.page_bytes;
    let length = size_of(path)?;
    if length < expected && size_of(&wal_of(path))? == 0 {
        return Err(OpenError::Corrupt(format!(
            "it has {length} bytes, not {expected}: its end is missing"
        )));
    }
    Ok(Content::Schema(found.version))
}

struct Found {
    application: u32,
    version: u32,
    tables: Vec<String>,
    pages: u64,
    page_bytes: u64,
}

impl Found {
    fn has(&self, table: &str) -> bool {
        self.tables.iter().any(|name| name == table)
    }
}

fn look(connection: &Connection) -> rusqlite::Result<Found> {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let tables = names
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    Ok(Found {
        application: connection.pragma_query_value(None, "application_id", |row| row.get(0))?,
        version: connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
        tables,
        pages: number("page_count")?,
        page_bytes: number("page_size")?,
    })
}

fn prepare_for_writing(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn migrate(connection: &mut Connection, found: u32) -> rusqlite::Result<()> {
    if found == SUPPORTED {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for migration in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SUPPORTED)?;
    transaction.commit()
}

/// Bytes in a file, 0 when it is missing. Opens nothing: closing it again would end SQLite's lock.
fn size_of(path: &Path) -> Result<u64, OpenError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(OpenError::Io {
            operation: "look at",
            path: path.to_owned(),
            source: Box::new(error),
        }),
    }
}

fn wal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn at<'a>(
    path: &'a Path,
    operation: &'static str,
) -> impl FnOnce(rusqlite::Error) -> OpenError + 'a {
    move |source| {
        let path = path.to_owned();
        match kind(&source) {
            Kind::Locked => OpenError::Locked { path },
            Kind::Full => OpenError::Full { path, source },
            Kind::Corrupt => OpenError::Corrupt(source.to_string()),
            Kind::Other => OpenError::Io {
                operation,
                path,
                source: Box::new(source),
            },
        }
    }
}
