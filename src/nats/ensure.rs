//! How streams and consumers are brought to what they must look like: created when they are missing,
//! taken only with our owner, or the one to adopt, in their metadata, updated in place, never deleted to repair. Each
//! step is idempotent; of two that race, one is refused and finds the other's work next time.

use serde::Deserialize;
use serde_json::Value;

use super::api::{ApiError, Code};
use super::connect::Nats;
use super::desired::{Config, Drift, merged, owner_of};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// It was missing.
    Created,
    /// It was as it must be.
    Unchanged,
    /// It had drifted.
    Updated {
        /// In these fields of JetStream's JSON.
        fields: Vec<String>,
    },
    /// It was of the owner to adopt, and is ours now.
    Adopted {
        /// That owner.
        from: String,
    },
}

/// What a delete found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It was there and is gone.
    Now,
    /// It was not there.
    Absent,
}

/// Why an object is not as it must be, or still there.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It exists and is not ours.
    #[error(
        "{kind} {name} belongs to {}, not to {ours}; it is left alone",
        owner.as_deref().unwrap_or("someone else")
    )]
    Foreign {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Whose it says it is.
        owner: Option<String>,
        /// Who asked.
        ours: String,
    },
    /// It differs in what can only be set at creation.
    #[error(
        "{kind} {name} has {field} {found}, {desired} is needed and cannot be changed in place"
    )]
    Immutable {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The field of JetStream's JSON.
        field: String,
        /// What it must be.
        desired: String,
        /// What it is.
        found: String,
    },
    /// The server accepted the configuration and holds another: it is too old for these fields.
    #[error("{kind} {name}: the server ignored {}", fields.join(", "))]
    Ignored {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The fields of JetStream's JSON.
        fields: Vec<String>,
    },
    /// The server did not do or answer it.
    #[error("cannot {operation} {kind} {name}")]
    Api {
        /// `read`, `create`, `update` or `delete`.
        operation: &'static str,
        /// `stream` or `consumer`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}

/// One object and the subjects under which it is managed.
pub(super) struct Object<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) info: String,
    pub(super) create: String,
    pub(super) update: String,
    pub(super) delete: String,
    /// Wraps a configuration into the request that creates (`create`) or updates (`update`) it.
    pub(super) request: &'a (dyn Fn(Config, &'static str) -> Value + Sync),
}

#[derive(Deserialize)]
struct Described {
    config: Config,
}

#[derive(Deserialize)]
struct DeleteAnswer {}

impl Object<'_> {
    /// Brings it to `desired`, as [`super::ensure`](self) says.
    pub(super) async fn ensure(
        &self,
        nats: &Nats,
        desired: &Config,
        adopt: Option<&str>,
        drift: &(dyn Fn(&Config) -> Drift + Sync),
    ) -> Result<Ensured, ObjectError> {
        let Some(observed) = self.read::<Described>(nats).await? else {
            let config = merged(desired, &Config::new());
            self.write(nats, "create", config, drift).await?;
            return Ok(Ensured::Created);
        };
        let ours = owner_of(desired).unwrap_or_default();
        let adopted = adopt.filter(|from| owner_of(&observed.config) == Some(*from));
        let adopted = adopted.filter(|from| *from != ours);
        if adopted.is_none() {
            self.check_owner(ours, &observed.config)?;
        }
        match drift(&observed.config) {
            Drift::None => Ok(Ensured::Unchanged),
            Drift::Update { fields } => {
                let config = merged(desired, &observed.config);
                self.write(nats, "update", config, drift).await?;
                Ok(match adopted {
                    Some(from) => Ensured::Adopted {
                        from: from.to_owned(),
                    },
                    None => Ensured::Updated { fields },
                })
            }
            Drift::Immutable {
                field,
                desired,
                found,
            } => Err(ObjectError::Immutable {
                kind: self.kind,
                name: self.name.to_owned(),
                field,
                desired,
                found,
            }),
        }
    }

    /// Its description; `None` when it does not exist.
    pub(super) async fn read<T: serde::de::DeserializeOwned>(
        &self,
        nats: &Nats,
    ) -> Result<Option<T>, ObjectError> {
        match nats.api(&self.info, &Value::Null).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.code().is_some_and(is_missing) => Ok(None),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    /// Deletes it if it is `owner`'s.
    pub(super) async fn delete(&self, nats: &Nats, owner: &str) -> Result<Deleted, ObjectError> {
        let Some(observed) = self.read::<Described>(nats).await? else {
            return Ok(Deleted::Absent);
        };
        self.check_owner(owner, &observed.config)?;
        match nats.api::<DeleteAnswer>(&self.delete, &Value::Null).await {
            Ok(DeleteAnswer {}) => Ok(Deleted::Now),
            Err(error) if error.code().is_some_and(is_missing) => Ok(Deleted::Absent),
            Err(source) => Err(self.failed("delete", source)),
        }
    }

    /// Writes, and compares what the server says it holds now.
    async fn write(
        &self,
        nats: &Nats,
        operation: &'static str,
        config: Config,
        drift: &(dyn Fn(&Config) -> Drift + Sync),
    ) -> Result<(), ObjectError> {
        let subject = if operation == "create" {
            &self.create
        } else {
            &self.update
        };
        let request = (self.request)(config, operation);
        let echo: Described = nats
            .api(subject, &request)
            .await
            .map_err(|source| self.failed(operation, source))?;
        let fields = match drift(&echo.config) {
            Drift::None => return Ok(()),
            Drift::Update { fields } => fields,
            Drift::Immutable { field, .. } => vec![field],
        };
        Err(ObjectError::Ignored {
            kind: self.kind,
            name: self.name.to_owned(),
            fields,
        })
    }

    fn check_owner(&self, ours: &str, observed: &Config) -> Result<(), ObjectError> {
        let owner = owner_of(observed);
        if owner == Some(ours) {
            return Ok(());
        }
        Err(ObjectError::Foreign {
            kind: self.kind,
            name: self.name.to_owned(),
            owner: owner.map(str::to_owned),
            ours: ours.to_owned(),
        })
    }

    fn failed(&self, operation: &'static str, source: ApiError) -> ObjectError {
        ObjectError::Api {
            operation,
            kind: self.kind,
            name: self.name.to_owned(),
            source,
        }
    }
}

fn is_missing(code: Code) -> bool {
    code == Code::STREAM_NOT_FOUND || code == Code::CONSUMER_NOT_FOUND
}
