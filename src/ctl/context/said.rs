//! What the API server says, in its own words.

use std::error::Error;
use std::fmt;

/// What the API server said, without what a client adds to it.
#[derive(Debug)]
pub(in super::super) struct Said(kube::Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            kube::Error::Api(status) if !status.message.is_empty() => f.write_str(&status.message),
            kube::Error::Api(status) => write!(f, "{} ({})", status.reason, status.code),
            kube::Error::Service(error) => write!(f, "the API server does not answer: {error}"),
            other => other.fmt(f),
        }
    }
}

impl Error for Said {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = Error::source(&self.0)?;
        match &self.0 {
            kube::Error::Api(_) => None,
            _ => source.source(),
        }
    }
}

impl Said {
    /// Whether nobody answered.
    pub(in super::super) fn is_silence(&self) -> bool {
        matches!(
            &self.0,
            kube::Error::Service(_) | kube::Error::HyperError(_)
        )
    }

    pub(in super::super) fn is_forbidden(&self) -> bool {
        matches!(&self.0, kube::Error::Api(status) if status.code == 403)
    }
}

/// For `map_err`.
pub(in super::super) fn said(error: kube::Error) -> Said {
    Said(error)
}
