//! What NATS and the Secrets answered: whether they can carry the pipeline.

use lookback_protocol::names::Owner;
use lookback_protocol::position::{StreamIdentity, StreamSeq};

use super::{ValidatedTurn, turn};
use crate::api::conditions::Reason;
use crate::api::pipeline::SourceSpec;
use crate::nats::connect::{ADVISED_VERSION, MIN_API_LEVEL};
use crate::operator::pipeline::build::PARTITION;
use crate::operator::pipeline::facts::{
    Dereferenced, NatsFacts, Retention, SecretContent, SecretFact, ServerFacts,
};
use crate::operator::pipeline::problem::Problem;

/// What the spec's source is, once it can be read.
pub(super) struct Readable<'a> {
    pub(super) server: &'a ServerFacts,
    /// The incarnation the pipeline was begun on.
    pub(super) stream: StreamIdentity,
    /// Where a brand-new state file begins.
    pub(super) start: StreamSeq,
}

/// Whose objects are the pipeline's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners<'a> {
    /// Its own.
    pub(super) me: &'a Owner,
    /// Those it takes over.
    pub(super) adopt: Option<&'a Owner>,
}

/// Secrets that are not there.
pub(super) fn missing_secrets(secrets: &[SecretFact]) -> Vec<Problem> {
    secrets
        .iter()
        .filter_map(|SecretFact { name, key, content }| match content {
            SecretContent::Present => None,
            SecretContent::NoSecret => Some(Problem::new(
                Reason::SecretMissing,
                format!("Secret {name} does not exist: create it with the key {key}"),
            )),
            SecretContent::NoKey => Some(Problem::new(
                Reason::SecretKeyMissing,
                format!("Secret {name} has no key {key}: add it"),
            )),
        })
        .collect()
}

/// A server whose version is known for faults.
pub(super) fn outdated(facts: &NatsFacts) -> Option<Problem> {
    let NatsFacts::Reached(server) = facts else {
        return None;
    };
    let version = parse_version(&server.version)?;
    (server.api_level >= MIN_API_LEVEL && version < ADVISED_VERSION).then(|| {
        let (major, minor, patch) = ADVISED_VERSION;
        Problem::new(
            Reason::ServerOutdated,
            format!(
                "the NATS server is {}: upgrade to {major}.{minor}.{patch} or newer",
                server.version
            ),
        )
    })
}

/// The source, or the one thing that keeps it from being read.
pub(super) fn readable<'a>(
    spec: &SourceSpec,
    owners: Owners<'_>,
    facts: &'a Dereferenced,
    turn: Option<&ValidatedTurn>,
) -> Result<Readable<'a>, Option<Problem>> {
    let server = match &facts.nats {
        NatsFacts::NotAsked => return Err(None),
        NatsFacts::Unavailable(message) => return problem(Reason::NatsUnavailable, message),
        NatsFacts::Refused(message) => return problem(Reason::NatsRefused, message),
        NatsFacts::JetStreamDisabled(message) => {
            return problem(Reason::JetStreamDisabled, message);
        }
        NatsFacts::Reached(server) => server,
    };
    if server.api_level < MIN_API_LEVEL {
        return problem(
            Reason::ServerTooOld,
            format!(
                "the NATS server is {} with JetStream API level {}: upgrade every server to 2.14 or newer (level {MIN_API_LEVEL})",
                server.version, server.api_level
            ),
        );
    }
    let name = &spec.stream;
    let Some(source) = &server.source else {
        return problem(
            Reason::SourceMissing,
            format!("stream {name} does not exist: create it"),
        );
    };
    if source.retention != Retention::Limits {
        return problem(
            Reason::SourceUnsupported,
            format!(
                "stream {name} has {:?} retention, which removes what is acknowledged: read from a stream with Limits retention, for example one that sources {name}",
                source.retention
            ),
        );
    }
    let Some(turn) = turn else {
        return Err(None);
    };
    if let Some(foreign) = foreign_consumer(owners, server, turn) {
        return Err(Some(foreign));
    }
    let stream = turn::stream(turn, facts, server).unwrap_or(&source.identity);
    if *stream != source.identity {
        return problem(
            Reason::StreamChanged,
            format!(
                "the pipeline was begun on stream {} created {}, but stream {} was created {}: its sequences mean other events; begin anew with a new id in spec.replay and statePolicy Clear or Rebuild",
                stream.name, stream.created, source.identity.name, source.identity.created
            ),
        );
    }
    Ok(Readable {
        server,
        stream: stream.clone(),
        start: turn::start(turn, spec.start, facts, server, source),
    })
}

/// Copies of the pipeline's own streams.
pub(super) fn replicas(wanted: Option<i32>, server: &ServerFacts) -> u8 {
    let unset = if server.clustered { 3 } else { 1 };
    wanted
        .and_then(|replicas| u8::try_from(replicas).ok())
        .unwrap_or(unset)
}

/// A consumer under the name of the epoch's that is another's.
fn foreign_consumer(
    Owners { me, adopt }: Owners<'_>,
    server: &ServerFacts,
    turn: &ValidatedTurn,
) -> Option<Problem> {
    let found = server.consumers.get(&turn.epoch)?;
    let owner = found.metadata.as_ref().map(|it| it.owner.as_str());
    let mut ours = [Some(me), adopt].into_iter().flatten();
    if ours.any(|ours| owner == Some(ours.to_string().as_str())) {
        return None;
    }
    let stream = &server.source.as_ref()?.identity.name;
    let name = me.pipeline.consumer(PARTITION, turn.epoch);
    let whose = owner.map_or_else(String::new, |owner| format!(" but {owner}'s"));
    Some(Problem::new(
        Reason::ForeignConsumer,
        format!("stream {stream} has a consumer {name} that is not {me}'s{whose}: delete it"),
    ))
}

fn problem<T>(reason: Reason, message: impl Into<String>) -> Result<T, Option<Problem>> {
    Err(Some(Problem::new(reason, message)))
}

fn parse_version(text: &str) -> Option<(u64, u64, u64)> {
    let release = text.split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}
