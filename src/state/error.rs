//! What can be wrong with a state file, in the three kinds that call for different verbs: no room,
//! damage, and everything else.

use std::path::PathBuf;

use rusqlite::{Error, ErrorCode};

/// Why a state file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "state file {path} is in use by another process: two workers have the same volume; stop one of them"
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged, or no state file; says what is wrong.
    #[error("state file is damaged: {0}")]
    Corrupt(String),
    /// A newer version wrote it.
    #[error("state file has schema {found}, this version knows up to {supported}")]
    NewerSchema {
        /// Its schema version.
        found: u32,
        /// The newest this build knows.
        supported: u32,
    },
    /// The volume has no room to create or migrate it.
    #[error("no room left on the volume of state file {path}; make the volume larger")]
    Full {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: Error,
    },
    /// The file system refused something.
    #[error("cannot {operation} state file {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite or the file system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why an operation on an open state file failed. The operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The volume has no room.
    #[error("no room left on the volume of the state file to {operation}")]
    Full {
        /// What was tried.
        operation: &'static str,
        /// What SQLite said.
        #[source]
        source: Error,
    },
    /// The file is damaged.
    #[error("state file is damaged: cannot {operation}")]
    Corrupt {
        /// What was tried.
        operation: &'static str,
        /// What SQLite said.
        #[source]
        source: Error,
    },
    /// The disk or SQLite refused it.
    #[error("cannot {operation} in the state file")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What SQLite said.
        #[source]
        source: Error,
    },
    /// It would break an invariant of the file: a bug of the caller.
    #[error("refused to {operation} in the state file: {reason}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The invariant.
        reason: String,
    },
}

/// What an error of SQLite calls for.
pub(super) enum Kind {
    Locked,
    Full,
    Corrupt,
    Other,
}

/// SQLite reports ENOSPC as `SQLITE_FULL`. A row that does not read back as what was written is
/// damage, like a page that does not.
pub(super) fn kind(error: &Error) -> Kind {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => Kind::Corrupt,
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Locked,
            Some(ErrorCode::DiskFull) => Kind::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Corrupt,
            _ => Kind::Other,
        },
    }
}

pub(super) trait During<T> {
    /// Names the operation that failed.
    fn during(self, operation: &'static str) -> Result<T, StateError>;
}

impl<T> During<T> for rusqlite::Result<T> {
    fn during(self, operation: &'static str) -> Result<T, StateError> {
        self.map_err(|source| match kind(&source) {
            Kind::Full => StateError::Full { operation, source },
            Kind::Corrupt => StateError::Corrupt { operation, source },
            Kind::Locked | Kind::Other => StateError::Io { operation, source },
        })
    }
}
